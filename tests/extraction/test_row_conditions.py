"""The conditions of --where select among the studies of a row, which is queried by its own keys."""

from __future__ import annotations

import pytest

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.extraction.matching import ResolveRules, classify
from dicom_quarry.extraction.row_conditions import Keys, RowConditions
from dicom_quarry.model import OutcomeStatus, Request, Study
from dicom_quarry.outcomes import make_outcome

HEAD = Study("1.2.1", "4711", "A1", "20180723", "CT", "CT HEAD")
CHEST = Study("1.2.2", "4711", "A1", "20180724", "CT\\SR", "CT CHEST 2 VIEWS")
BLANK = Study("1.2.3", "4711", "A1", "20180725", "CR", "")
MUTE = Study("1.2.4", "4711", "A1", "20180725", "", "CT HEAD")

ON_CHEST: Keys = (("StudyDescription", "*CHEST*"),)
ON_MR: Keys = (("ModalitiesInStudy", "MR"),)


def judged(where: Keys, *studies: Study, keys: Keys = (("AccessionNumber", "A1"),)) -> tuple[str, str, int]:
    conditions = RowConditions(where)
    rules = ResolveRules(conditions=conditions)
    row = Request(1, 2, conditions.query_keys((*keys, *where)), ())
    result = classify(row, StudyQueryResult(studies), rules)
    reason = make_outcome(result.code, **result.details).reason if result.code else ""
    return result.code, reason, result.filtered_count


@pytest.mark.parametrize(
    ("where", "studies", "reason"),
    [
        (ON_CHEST, (HEAD,), "the study exists, but is CT HEAD"),
        (ON_CHEST, (BLANK,), "the study exists, but has no description"),
        (ON_MR, (CHEST,), "the study exists, but is CT SR"),
        (ON_MR, (HEAD, HEAD), "2 studies exist, but each is CT"),
        (ON_CHEST, (HEAD, BLANK), "2 studies exist, but one is CT HEAD; one has no description"),
        ((("StudyDate", "20190101-"),), (HEAD,), "the study exists, but is of 2018-07-23"),
        ((*ON_CHEST, *ON_MR), (HEAD,), "the study exists, but is CT HEAD and is CT"),
        ((("PatientSex", "F"),), (HEAD,), "the study exists, but has no PatientSex"),
    ],
)
def test_the_reason_names_what_exists(where: Keys, studies: tuple[Study, ...], reason: str) -> None:
    code, text, count = judged(where, *studies)
    assert (code, text, count) == ("study_filtered", reason, len(studies))
    assert make_outcome(code, what=text).status is OutcomeStatus.FILTERED


def test_some_studies_are_left_out() -> None:
    assert judged(ON_CHEST, HEAD, CHEST, BLANK) == ("", "", 2)
    assert judged((), HEAD, CHEST) == ("", "", 0)


def test_an_archive_that_returns_no_modalities_decides_nothing() -> None:
    assert judged(ON_MR, MUTE)[0] == "condition_not_returned"
    # Another condition decides.
    assert judged((*ON_MR, *ON_CHEST), MUTE)[0] == "study_filtered"


def test_no_study_is_not_filtered() -> None:
    assert judged(ON_CHEST)[0] == "study_not_found"


@pytest.mark.parametrize(
    ("own", "where", "sent"),
    [
        ((("AccessionNumber", "A1"),), ON_CHEST, ()),
        ((("PatientID", "4711"), ("StudyDate", "20180723")), ON_CHEST, ()),
        ((("PatientID", "4711"),), ON_CHEST, ON_CHEST),
        ((("AccessionNumber", "A*"),), ON_CHEST, ON_CHEST),
        ((("AccessionNumber", "A1"),), (("IssuerOfPatientID", "HOSP"),), (("IssuerOfPatientID", "HOSP"),)),
    ],
)
def test_the_archive_gets_the_conditions_that_a_row_needs(own: Keys, where: Keys, sent: Keys) -> None:
    conditions = RowConditions(where)
    assert conditions.query_keys((*own, *where)) == (*own, *sent)
    assert conditions.own_keys((*own, *where)) == own
