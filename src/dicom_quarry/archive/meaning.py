"""What a status means, in every protocol."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_quarry.archive.base import Verdict


@dataclass(frozen=True, slots=True)
class StatusMeaning:
    """A verdict, a sentence for a person, and what that person can do where anything can be done."""

    verdict: Verdict
    sentence: str
    next_step: str = ""
