"""Attribute matching (PS3.4 C.2.2.2), without a network."""

from __future__ import annotations

import pytest

from dicom_quarry.demo.query_matching import Catalogue, QueryIdentifier, matches
from dicom_quarry.demo.sample_cohorts import make_demo_studies
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies

STUDIES = generate_studies(12, series=2, images=3)
CATALOGUE = Catalogue(STUDIES)
FIRST = STUDIES[0]


@pytest.mark.parametrize(
    ("vr", "asked", "value", "expected"),
    [
        ("LO", "", "anything", True),
        ("LO", "4711", "4711", True),
        ("LO", "4711 ", "4711", True),
        ("LO", "4711", "04711", False),
        ("LO", "abc", "ABC", False),
        ("LO", "47*", "4711", True),
        ("LO", "47?1", "4711", True),
        ("LO", "47?", "4711", False),
        ("LO", "4.11", "4711", False),
        ("LO", "*", "", True),
        ("PN", "smi*", "Smith^Ann", True),
        ("UI", "1.2\\1.3", "1.3", True),
        ("UI", "1.2\\1.3\0", "1.3", True),
        ("UI", "1.2*", "1.23", False),
        ("DA", "20180101-20180131", "20180131", True),
        ("DA", "20180101-20180131", "20180201", False),
        ("DA", "-20180131", "19991231", True),
        ("DA", "20180101-", "20180101", True),
        ("DA", "20180101-", "", False),
        ("DA", "20180101", "20180101", True),
        ("TM", "10-12", "125959", True),
        ("CS", "MR", "CT\\MR", True),
        ("CS", "M", "CT\\MR", False),
        ("IS", "3", "3", True),
    ],
)
def test_a_value_matches_a_key(vr: str, asked: str, value: str, expected: bool) -> None:
    assert matches(vr, asked, value) is expected


def found(level: str, *, among: Catalogue = CATALOGUE, **keys: str) -> list[dict[str, str]]:
    return list(among.find(QueryIdentifier(level, keys)))


def test_a_study_tells_its_counts_and_modalities() -> None:
    keys = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy")
    [answer] = CATALOGUE.find(
        QueryIdentifier("STUDY", {"StudyInstanceUID": FIRST.study_uid} | dict.fromkeys(keys, ""))
    )
    assert [answer[key] for key in keys] == ["2", "6", "CT"]
    assert answer["PatientID"] == FIRST.patient.patient_id


def test_keys_of_several_attributes_are_all_matched() -> None:
    other = next(s for s in STUDIES if s.patient != FIRST.patient)
    assert found("STUDY", AccessionNumber=FIRST.accession, PatientID=other.patient.patient_id) == []
    assert len(found("STUDY", AccessionNumber=FIRST.accession, PatientID=FIRST.patient.patient_id)) == 1


def test_universal_matching_returns_everything() -> None:
    assert len(found("STUDY", AccessionNumber="")) == len(STUDIES)
    assert len(found("PATIENT", PatientID="")) == len({s.patient.patient_id for s in STUDIES})


def test_a_list_of_uids() -> None:
    uids = [s.study_uid for s in STUDIES[3:6]]
    assert [a["StudyInstanceUID"] for a in found("STUDY", StudyInstanceUID="\\".join(uids))] == uids


def test_series_and_instances_are_listed_with_the_keys_above_them() -> None:
    answers = found("IMAGE", StudyInstanceUID=FIRST.study_uid, SOPClassUID="")
    assert [a["SOPInstanceUID"] for a in answers] == [i.sop_uid for i in FIRST.instances()]
    assert {a["SeriesInstanceUID"] for a in answers} == {s.series_uid for s in FIRST.series}
    [series] = found("SERIES", StudyInstanceUID=FIRST.study_uid, SeriesNumber="2")
    assert series["SeriesInstanceUID"] == FIRST.series[1].series_uid


def test_an_unknown_key_is_returned_empty_and_not_matched_on() -> None:
    [answer] = found("STUDY", StudyInstanceUID=FIRST.study_uid, BodyPartExamined="HEAD")
    assert answer["BodyPartExamined"] == ""


@pytest.mark.parametrize(("level", "count"), [("STUDY", 6), ("SERIES", 3), ("IMAGE", 2)])
def test_a_move_selects_by_the_unique_keys_of_its_level(level: str, count: int) -> None:
    instances = list(FIRST.instances())
    keys = {
        "StudyInstanceUID": FIRST.study_uid,
        "SeriesInstanceUID": FIRST.series[0].series_uid,
        "SOPInstanceUID": f"{instances[0].sop_uid}\\{instances[2].sop_uid}",
    }
    assert len(CATALOGUE.select(QueryIdentifier(level, keys))) == count


def test_the_demonstration_has_what_makes_cohorts_difficult() -> None:
    studies = make_demo_studies()
    catalogue = Catalogue(studies)

    def patients_of(study: DemoStudy) -> set[str]:
        answers = found("STUDY", among=catalogue, AccessionNumber=study.accession)
        return {answer["PatientID"] for answer in answers}

    assert max(len(found("STUDY", among=catalogue, PatientID=s.patient.patient_id)) for s in studies) == 10
    assert any(len(patients_of(study)) == 2 for study in studies)
    assert any(
        len(found("STUDY", among=catalogue, AccessionNumber=s.accession)) == 2 and len(patients_of(s)) == 1
        for s in studies
    )
    assert any(not s.patient.name.isascii() for s in studies)
