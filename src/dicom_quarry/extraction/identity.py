"""Comparison of the identity of an instance with that of the study for which it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dicom_quarry.model import Study
from dicom_quarry.wire.charsets import readings


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """Comparison of an instance's patient ID and accession with those of its study.

    Either side may have several values, as in ``A1\\A2``: one in common is enough. Padding and the reading of
    bytes without a declared character set do not matter; case and leading zeros do.
    ``accept_all``: the user accepts every difference. ``accept_patients``: the archive merges patients, so
    another patient ID is normal.
    """

    accept_all: bool = False
    accept_patients: bool = False

    def find_mismatch(self, study: Study, patient_id: str, accession: str) -> str:
        """Return the name of the attribute that differs, empty if none. A missing value never differs."""
        if self.accept_all:
            return ""
        accession_differs = _describe_difference("accession", study.accession, accession)
        if self.accept_patients:
            return accession_differs
        return _describe_difference("patient ID", study.patient_id, patient_id) or accession_differs


@lru_cache(maxsize=1024)  # the instances of a study have the same values
def _describe_difference(name: str, one: str, other: str) -> str:
    """Return the name if the values have none in common; with a note if only case differs."""
    first, second = values_of(one), values_of(other)
    if not (first and second) or first & second:
        return ""
    has_same_letters = {value.casefold() for value in first} & {value.casefold() for value in second}
    return f"upper and lower case of the {name}" if has_same_letters else name


def values_of(text: str) -> frozenset[str]:
    """Return the values of an attribute (PS3.5 6.4), in every reading, without padding."""
    return frozenset(
        reading for value in text.split("\\") if (one := value.strip(" \0")) for reading in readings(one)
    )
