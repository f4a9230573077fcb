"""The tone of an outcome: the class of the style sheet for its colour. The word is always next to it."""

from __future__ import annotations

from typing import Final

from dicom_quarry.model import OutcomeStatus
from dicom_quarry.reporting.job_view import VerdictLevel

_TONES: Final = {
    OutcomeStatus.COMPLETE: "good",
    OutcomeStatus.FILTERED: "plain",
    OutcomeStatus.PENDING: "plain",
    OutcomeStatus.EXCLUDED: "plain",
    OutcomeStatus.FAILED: "bad",
    OutcomeStatus.MISMATCH: "bad",
}


def tone_of(status: OutcomeStatus) -> str:
    """Return the class for an outcome: good, attention, bad or plain."""
    return _TONES.get(status, "attention")


def verdict_word(level: VerdictLevel) -> str:
    """Return a verdict's level in a word or two."""
    return {
        VerdictLevel.GOOD: "Complete",
        VerdictLevel.ATTENTION: "Needs attention",
        VerdictLevel.UNFINISHED: "Not finished",
    }[level]
