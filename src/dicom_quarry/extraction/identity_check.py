"""Whose images are these? What arrived is compared with what the archive answered and the user asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_quarry.model import Study

#: Where images that carry another identity than expected are kept, below the output folder. A path pattern
#: marks lower case, so no value of an image makes this name.
MISMATCH_DIR = "mismatch"


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """Which differences matter: none once a person accepted them, patients not where merges are normal."""

    accept_all: bool = False
    accept_patients: bool = False

    def find_mismatch(self, study: Study, patient_id: str, accession: str) -> str:
        """What differs, in words; empty if nothing does. What either side leaves out cannot differ."""
        if self.accept_all:
            return ""
        if not self.accept_patients and patient_id and study.patient_id and patient_id != study.patient_id:
            return "patient ID"
        if accession and study.accession and accession != study.accession:
            return "accession"
        return ""
