"""Identifiers, byte for byte as pydicom would write them."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode as reference

from dicom_quarry.archive.dimse.identifier import encode, is_uid
from dicom_quarry.errors import ConfigError


@pytest.mark.parametrize(
    "keys",
    [
        {"StudyInstanceUID": "1.2.3", "QueryRetrieveLevel": "STUDY", "PatientID": "ODD"},
        {"StudyInstanceUID": "1.2.34", "QueryRetrieveLevel": "IMAGE", "SOPInstanceUID": "1.2.3\\1.2.4"},
        {
            "PatientID": "",
            "NumberOfStudyRelatedInstances": "",
            "ModalitiesInStudy": "CT",
            "StudyDate": "20190101-",
        },
        {"PatientID": "Jürgen 1", "AccessionNumber": "A1"},
        {"PatientID": "患者1"},
    ],
)
def test_an_identifier_is_what_pydicom_would_write(keys: dict[str, str]) -> None:
    ds = Dataset()
    if not all(value.isascii() for value in keys.values()):
        ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(ds, keyword, value.split("\\") if "\\" in value else value)
    assert encode(keys) == reference(ds, is_implicit_vr=True, is_little_endian=True)


def test_a_key_that_dicom_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError, match="'AccessionNo'"):
        encode({"AccessionNo": "1"})


@pytest.mark.parametrize("text", ["1.2.3", "1." * 60 + "1", "1.2.840_x", "2.25.03"])
def test_a_uid_that_names_one_object_may_be_odd(text: str) -> None:
    assert is_uid(text)


@pytest.mark.parametrize(
    "text", ["", "*", "1.2.*", "1.?", "1.2\\1.3", "1.2 3", "1.2\n", "1.2\0", "1.2\x7f", "1" * 129]
)
def test_what_could_name_more_than_one_object_or_steer_a_terminal_is_no_uid(text: str) -> None:
    assert not is_uid(text)
