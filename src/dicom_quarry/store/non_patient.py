"""Objects that belong to no patient: palettes, hanging protocols and the like (PS3.4 annex GG)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from dicom_quarry.store import safe_names

#: Folder below the root for these objects, as no path pattern fits them.
NON_PATIENT_DIR: Final = "non-patient"

_ROOT: Final = "1.2.840.10008.5.1.4."
_ENDS: Final = ("38.1", "39.1", "43.1", "44.1", "45.1", "1.1.200.1", "1.1.200.3", "1.1.200.7", "1.1.201.1")
#: PS3.4 GG.3: hanging protocols, colour palettes, implant templates, defined procedure protocols, protocol
#: approvals and inventories.
_SOP_CLASSES: Final = frozenset(_ROOT + end for end in _ENDS)


def is_non_patient(sop_class: str) -> bool:
    """Return True for a SOP class whose instances have no Study and Series Instance UID."""
    return sop_class in _SOP_CLASSES


def non_patient_path(sop_class: str, sop_uid: str) -> PurePosixPath:
    """Return the path of such an object below the root: its class, then its UID."""
    name = safe_names.component(f"{safe_names.distinct(sop_uid)}.dcm")
    return PurePosixPath(NON_PATIENT_DIR, safe_names.component(safe_names.distinct(sop_class)), name)
