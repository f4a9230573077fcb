"""The modalities that a page names: DICOM's defined terms (PS3.3 C.7.3.1.1.1) alone."""

from __future__ import annotations

from typing import Final

_TERMS: Final = (
    "ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DMS DG DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO "
    "IOL IVOCT IVUS KER KO LEN LS MG MR M3D NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT "
    "PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF "
    "STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC"
)
_DEFINED: Final = frozenset(_TERMS.split())


def name_modalities(value: str) -> str:
    """Return the modalities of a study, several in one value, as a page names them.

    A text that is no defined term could be anything, so it is named ``other``.
    """
    found = {part.strip(" \0") for part in value.split("\\")} - {""}
    names = sorted(found & _DEFINED) + (["other"] if found - _DEFINED else [])
    return " + ".join(names) or "not given"
