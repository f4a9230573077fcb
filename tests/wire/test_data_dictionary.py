"""The tables of the standard are those of pydicom, which is not loaded for them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom import charset, datadict, uid, valuerep
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary

from dicom_quarry.wire import data_dictionary as tables


def test_every_attribute_is_that_of_pydicom() -> None:
    for tag, (vr, vm, _name, _retired, keyword) in DicomDictionary.items():
        assert (tables.vr_of_tag(tag), tables.vm_of_tag(tag), tables.keyword_of_tag(tag)) == (vr, vm, keyword)
        assert tables.tag_of_keyword(keyword) == datadict.tag_for_keyword(keyword)


@pytest.mark.parametrize("tag", [0x60020010, 0x50020005, 0x60FE3000, 0x7F220010, 0x002031FF])
def test_so_is_one_of_a_repeating_group(tag: int) -> None:
    assert (tables.vr_of_tag(tag), tables.vm_of_tag(tag)) == datadict.get_entry(tag)[:2]


@pytest.mark.parametrize("tag", [0x00091001, 0x60010010, 0x00080003, 0xFFFFFFFF])
def test_a_private_or_unknown_attribute_has_no_entry(tag: int) -> None:
    with pytest.raises(KeyError):
        tables.vr_of_tag(tag)
    assert tables.keyword_of_tag(tag) == "" and tables.tag_of_keyword("NoSuchKeyword") is None


def test_every_uid_is_that_of_pydicom() -> None:
    # Other libraries add to the one that pydicom has loaded.
    for one in (*tables._uids(), "1.2.3"):
        known = uid.UID(one)
        assert tables.name_of_uid(one) == known.name
        assert tables.is_sop_class(one) == (one in UID_dictionary and known.type == "SOP Class")


def test_representations_and_character_sets_are_those_of_pydicom() -> None:
    assert set(map(str, valuerep.EXPLICIT_VR_LENGTH_32)) == tables.LONG_VRS
    assert set(map(str, valuerep.STANDARD_VR)) == tables.LONG_VRS | tables.SHORT_VRS
    assert not tables.LONG_VRS & tables.SHORT_VRS
    assert set(map(str, valuerep.CUSTOMIZABLE_CHARSET_VR)) == tables.CHARSET_VRS
    assert valuerep.TEXT_VR_DELIMS == tables.TEXT_DELIMITERS
    assert charset.python_encoding == tables.CODECS and charset.default_encoding == tables.DEFAULT_CODEC
    assert charset.STAND_ALONE_ENCODINGS == tables.STAND_ALONE_TERMS
    assert charset.CODES_TO_ENCODINGS == tables.ESCAPED_CODECS
    assert charset.handled_encodings == tables.ESCAPING_CODECS


def test_they_do_not_load_pydicom() -> None:
    script = """if True:
        import sys
        from dicom_quarry.wire.data_dictionary import name_of_uid, vr_of_tag
        assert vr_of_tag(0x0020000D) == "UI" and name_of_uid("1.2.840.10008.1.1").startswith("Verification")
        assert not {"pydicom", "numpy"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", script], check=True)
