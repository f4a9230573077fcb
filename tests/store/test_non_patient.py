"""Objects that belong to no patient are stored by a receiver without a job, below a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.model import InstanceInfo
from dicom_quarry.store.non_patient import is_non_patient
from dicom_quarry.wire.negotiation import is_storage
from tests.store.instances import CT, EXPLICIT, element, files, make_store, put

PALETTE = "1.2.840.10008.5.1.4.39.1"
DATA = element(0x00080016, "UI", PALETTE.encode()) + element(0x00080018, "UI", b"1.2.3")
ARRIVAL = InstanceInfo(PALETTE, "1.2.3", EXPLICIT, "PACS")
PLACE = f"non-patient/{PALETTE}/1.2.3.dcm"


def test_a_palette_is_stored(tmp_path: Path) -> None:
    receipt = put(make_store(tmp_path, stores_non_patient=True), DATA, ARRIVAL)
    assert str(receipt.path) == PLACE
    assert (receipt.ref.study_uid, receipt.ref.series_uid, receipt.ref.sop_uid) == ("", "", "1.2.3")
    assert files(tmp_path) == [PLACE]
    assert put(make_store(tmp_path, stores_non_patient=True), DATA, ARRIVAL).result == "identical"


def test_a_job_refuses_a_palette_and_a_receiver_an_image_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(InstanceRefused, match="Study, Series or SOP Instance UID is missing"):
        put(make_store(tmp_path), DATA, ARRIVAL)
    with pytest.raises(InstanceRefused, match="Study, Series or SOP Instance UID is missing"):
        put(make_store(tmp_path, stores_non_patient=True), DATA, InstanceInfo(CT, "1.2.3", EXPLICIT))


def test_a_palette_that_a_crash_left_is_recovered(tmp_path: Path) -> None:
    store = make_store(tmp_path, stores_non_patient=True)
    path = put(store, DATA, ARRIVAL).path
    (tmp_path / path).rename(tmp_path / ".incoming" / "left.part")
    assert [str(one) for one in store.recover()] == [PLACE]
    assert files(tmp_path) == [PLACE]


def test_every_class_without_a_patient_is_negotiated_and_known() -> None:
    kinds = (
        "Hanging Protocol",
        "Color Palette",
        "Implant ",
        "Defined Procedure",
        "Protocol Approval",
        "Inventory",
    )
    found = {
        uid
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind == "SOP Class" and name.endswith("Storage") and any(word in name for word in kinds)
    }
    assert len(found) == 9
    assert all(is_non_patient(uid) and is_storage(uid) for uid in found)
    assert not is_non_patient(CT)


def test_a_dataset_under_a_wrong_label_is_refused_as_that(tmp_path: Path) -> None:
    deflated = InstanceInfo(CT, "1.2.3", "1.2.840.10008.1.2.1.99")
    with pytest.raises(InstanceRefused, match=r"damaged \(the sender labelled it as Deflated Explicit VR"):
        put(make_store(tmp_path), DATA, deflated)
