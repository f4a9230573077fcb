"""What an archive's answer means for a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.cohort.study_filter import matches
from dicom_quarry.extraction.matching import ResolveResult, ResolveRules, classify
from dicom_quarry.model import OutcomeStatus, Request, Study
from dicom_quarry.outcomes import make_outcome

ONE = Study("1.2.1", "4711", "A1", "20180723")
TWO = Study("1.2.2", "4711", "A1", "20180724")
OTHER = Study("1.2.3", "0815", "A1", "20180723")

ACCESSION = {"AccessionNumber": "A1"}
BOTH = {"PatientID": "4711", "AccessionNumber": "A1"}
DAY = {"PatientID": "4711", "StudyDate": "20180723"}
NAMED = {"StudyInstanceUID": "1.2.1"}


def ruled(keys: dict[str, str], found: StudyQueryResult, *, allow: bool = False) -> ResolveResult:
    return classify(Request(1, 2, tuple(keys.items()), ()), found, ResolveRules(allow_several_patients=allow))


@pytest.mark.parametrize(
    ("keys", "found", "studies"),
    [
        (ACCESSION, StudyQueryResult((ONE,)), (ONE,)),
        (ACCESSION, StudyQueryResult((ONE, TWO)), (ONE, TWO)),
        (BOTH, StudyQueryResult((ONE, OTHER, TWO)), (ONE, TWO)),
        (DAY, StudyQueryResult((ONE, TWO, OTHER)), (ONE,)),
        (NAMED, StudyQueryResult((ONE, TWO, OTHER)), (ONE,)),
        # An answer that was cut short will do where the study is named, and found.
        (NAMED, StudyQueryResult((ONE,), complete=False, incomplete_reason="limit"), (ONE,)),
    ],
)
def test_studies_found(keys: dict[str, str], found: StudyQueryResult, studies: tuple[Study, ...]) -> None:
    assert ruled(keys, found) == ResolveResult(studies)


@pytest.mark.parametrize(
    ("keys", "found", "code", "sentence"),
    [
        (ACCESSION, StudyQueryResult(()), "study_not_found", "no study matches this accession"),
        (BOTH, StudyQueryResult(()), "study_not_found", "no study matches this patient ID and accession"),
        (
            BOTH,
            StudyQueryResult((OTHER, replace(ONE, accession="A9"))),
            "answers_do_not_match",
            "the archive answered with 2 studies, but not with this patient ID and accession",
        ),
        (
            NAMED,
            StudyQueryResult((TWO,)),
            "answers_do_not_match",
            "the archive answered with 1 study, but not with this Study Instance UID",
        ),
        (
            ACCESSION,
            StudyQueryResult((ONE, OTHER)),
            "several_patients",
            "studies of 2 patients match this accession, so nothing was fetched",
        ),
        (
            ACCESSION,
            StudyQueryResult((ONE, replace(TWO, patient_id=""))),
            "several_patients",
            "studies of 2 patients match this accession (each study without a patient ID counts as a "
            "patient), so nothing was fetched",
        ),
        (
            ACCESSION,
            StudyQueryResult((replace(ONE, patient_id=""), replace(TWO, patient_id=""))),
            "several_patients",
            "studies of 2 patients match this accession (each study without a patient ID counts as a "
            "patient), so nothing was fetched",
        ),
        (
            ACCESSION,
            StudyQueryResult((ONE, TWO), complete=False, incomplete_reason="FE00"),
            "query_cut_short",
            "the archive ended its answer after 2 studies; there may be more",
        ),
        (
            ACCESSION,
            StudyQueryResult((), complete=False, incomplete_reason="FE00"),
            "query_failed",
            "the archive could not answer the query (FE00)",
        ),
        # Not among what was told: it may be among the rest, so this is no mismatch.
        (
            NAMED,
            StudyQueryResult((TWO,), complete=False, incomplete_reason="FE00"),
            "query_cut_short",
            "the archive ended its answer after 1 study; there may be more",
        ),
    ],
)
def test_rows_that_end_here(keys: dict[str, str], found: StudyQueryResult, code: str, sentence: str) -> None:
    ended = ruled(keys, found)
    assert (ended.studies, ended.code) == ((), code)
    assert make_outcome(code, **ended.details).reason == sentence


def test_several_patients_are_taken_where_they_are_allowed_or_named() -> None:
    assert ruled(ACCESSION, StudyQueryResult((ONE, OTHER)), allow=True).studies == (ONE, OTHER)
    assert ruled({"PatientID": "0815", **ACCESSION}, StudyQueryResult((ONE, OTHER))).studies == (OTHER,)


def test_no_identifier_is_in_the_details() -> None:
    """They go to the ledger's outcome, and from there to reports; the sentence names keys, never values."""
    for found in (StudyQueryResult(()), StudyQueryResult((OTHER,)), StudyQueryResult((ONE, OTHER))):
        told = str(dict(ruled(BOTH, found).details))
        assert "4711" not in told
        assert "A1" not in told


values = st.sampled_from(["", "1", "01", "2"])
studies = st.lists(
    st.builds(Study, st.sampled_from(["1.2", "1.3", "1.4"]), values, values, values),
    unique_by=lambda study: study.study_uid,
).map(tuple)


@given(
    studies,
    st.dictionaries(st.sampled_from(["PatientID", "AccessionNumber", "StudyDate"]), values, min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_nothing_is_taken_that_lacks_a_key_and_every_row_ends_or_has_studies(
    answers: tuple[Study, ...], keys: dict[str, str], complete: bool, allow: bool
) -> None:
    ended = ruled(keys, StudyQueryResult(answers, complete), allow=allow)
    assert bool(ended.studies) != bool(ended.code)
    assert all(matches(study, keys) for study in ended.studies)
    if not complete:
        assert not ended.studies
    if ended.studies and not allow and "PatientID" not in keys:
        assert len({study.patient_id for study in ended.studies}) == 1
    if ended.code == "study_not_found":
        assert complete
        assert not answers
    if ended.code:
        assert make_outcome(ended.code, **ended.details).status is not OutcomeStatus.PENDING


# -- more than a row is expected to mean


def test_more_studies_than_a_row_is_expected_to_mean() -> None:
    found = StudyQueryResult(tuple(Study(f"1.2.{n}", "4711", "A1") for n in range(11)))
    request = Request(1, 2, (("PatientID", "4711"),), ())
    ended = classify(request, found, ResolveRules())
    assert (ended.code, ended.details["studies"], ended.studies) == ("too_many_studies", 11, ())
    assert len(classify(request, found, ResolveRules(max_studies=11)).studies) == 11


def test_the_reason_why_parts_prove_nothing_is_part_of_the_outcome() -> None:
    found = StudyQueryResult((ONE,), complete=False, incomplete_reason="dates are ignored", splittable=False)
    concluded = classify(Request(1, 2, tuple(ACCESSION.items()), ()), found, ResolveRules())
    assert make_outcome(concluded.code, **concluded.details).reason == (
        "the archive ended its answer after 1 study; there may be more (dates are ignored)"
    )
