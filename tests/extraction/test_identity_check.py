"""Whose images these are, compared in words."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from dicom_quarry.extraction.identity import IdentityCheck
from dicom_quarry.extraction.inbound import InboundStudy
from dicom_quarry.extraction.retry_policy import Finish, next_step
from dicom_quarry.extraction.task_snapshot import TaskSnapshot
from dicom_quarry.model import InstanceRef, Listing, Receipt, Study, Task

STUDY = Study("1.2", patient_id="P1", accession="A1")


@pytest.mark.parametrize(
    ("patient", "accession", "strict", "merged", "accepted"),
    [
        ("P1", "A1", "", "", ""),
        ("P2", "A1", "patient ID", "", ""),
        ("P1", "A2", "accession", "accession", ""),
        ("P2", "A2", "patient ID", "accession", ""),
        ("", "", "", "", ""),  # what either side leaves out cannot differ
        ("", "A2", "accession", "accession", ""),
        ("p1", "A1", "upper and lower case of the patient ID", "", ""),
        ("P1", "a1", "upper and lower case of the accession", "upper and lower case of the accession", ""),
        ("P1 \0", "A1 ", "", "", ""),  # padding
        ("P1", "A0\\A1", "", "", ""),
        ("P1", "A0\\A2", "accession", "accession", ""),
        ("0P1", "A1", "patient ID", "", ""),
    ],
)
def test_difference(patient: str, accession: str, strict: str, merged: str, accepted: str) -> None:
    assert IdentityCheck().find_mismatch(STUDY, patient, accession) == strict
    assert IdentityCheck(accept_patients=True).find_mismatch(STUDY, patient, accession) == merged
    assert IdentityCheck(accept_all=True).find_mismatch(STUDY, patient, accession) == accepted


def test_an_answer_with_several_values_or_in_another_reading() -> None:
    merged = Study("1.2", patient_id="M\u00dc-1", accession="A1\\A2")
    check = IdentityCheck()
    assert check.find_mismatch(merged, "M\u00dc-1", "A2") == ""
    assert check.find_mismatch(merged, "M\u00dc-1".encode().decode("latin-1"), "A1") == ""
    assert check.find_mismatch(merged, "M\u00dc-1", "A3") == "accession"
    assert check.find_mismatch(merged, "M\u00d6-1", "A1") == "patient ID"


def test_what_the_archive_left_out_cannot_differ() -> None:
    assert IdentityCheck().find_mismatch(Study("1.2"), "P2", "A2") == ""


def receipt(sop_uid: str, folder: str = "P1", *, patient: str = "P1", digest: bytes = b"a") -> Receipt:
    path = PurePosixPath(folder, f"{sop_uid}.dcm")
    ref = InstanceRef("1.2", "1.2.1", sop_uid)
    return Receipt(ref, "1.2.840.10008.1.2", path, 10, digest * 32, patient_id=patient, accession="A1")


def delivery(*adopted: Receipt) -> InboundStudy:
    return InboundStudy(Task(1, "main", STUDY), {}, adopted, IdentityCheck())


def test_one_image_of_another_patient_marks_the_whole_delivery() -> None:
    fresh = delivery()
    assert fresh.add(receipt("1"))
    assert fresh.mismatch == ""
    assert fresh.add(receipt("2", "mismatch/P2", patient="P2"))
    assert fresh.add(receipt("3"))
    assert fresh.mismatch == "patient ID"
    adopted = delivery(receipt("1"), receipt("2", "mismatch/P2", patient="P2"))
    assert adopted.mismatch == "patient ID"
    assert {str(folder) for folder in adopted.folders} == {"P1", "mismatch/P2"}


def test_several_files_of_one_instance_are_in_conflict_after_a_crash_too() -> None:
    assert delivery(receipt("1"), receipt("2")).conflicts == 0
    assert delivery(receipt("1"), receipt("1", "other")).conflicts == 0, "the same content"
    twice = delivery(receipt("1"), receipt("1", "other", digest=b"b"))
    assert twice.conflicts == 1
    assert twice.receipts["1"].path == PurePosixPath("P1/1.dcm")


def test_identity_weighs_more_than_completeness() -> None:
    ref = InstanceRef("1.2", "1.2.1", "1")
    known = TaskSnapshot(
        task=Task(1, "main", STUDY),
        listing=Listing((ref,), ("1.2.1",)),
        stored={"1": None},
        mismatch="accession",
    )
    assert next_step(known) == Finish("stored_differs", {"keys": "accession"})
