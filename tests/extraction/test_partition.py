"""Queries in parts: the answer of an archive with a limit is either proved, or not believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.cohort.study_filter import matches, matches_value
from dicom_quarry.errors import QueryFailed
from dicom_quarry.extraction.partition import MODALITIES, QueryBudget, find_in_parts
from dicom_quarry.model import Study

TODAY = date(2026, 1, 1)
PATIENT = {"PatientID": "4711"}


def studies(*days: str, modality: str = "CT") -> list[Study]:
    return [
        Study(f"1.2.{modality.strip('*')}.{number}", "4711", f"A{number}", day, modality)
        for number, day in enumerate(days)
    ]


def no_count(_patient_id: str) -> None:
    """Return no number of studies, as many archives do."""


def month(count: int) -> list[Study]:
    """Return one study a day."""
    return studies(*(f"{date(2019, 3, 1) + timedelta(days=n):%Y%m%d}" for n in range(count)))


@dataclass
class CappedArchive:
    """A model of an archive that stops after ``cap`` answers.

    ``dates``: ranges are matched, ignored, never matched, refused, refused if an end is open, or matched but
    for their last day. ``modalities``: the key is matched, ignored, or refused. ``counts``: it has the number
    of the patient's studies at STUDY or PATIENT level, one that is too low, or none. ``repeats``: how often
    every answer comes. ``announced``: the limit is reported, or the archive has a profile with a result-cap.
    """

    held: list[Study]
    cap: int = 5
    dates: Literal["matched", "ignored", "empty", "refused", "closed", "last day left out"] = "matched"
    modalities: Literal["matched", "ignored", "refused"] = "matched"
    counts: Literal["study", "patient", "low", "no"] = "study"
    repeats: int = 1
    announced: bool = True
    queries: list[Mapping[str, str]] = field(default_factory=list)

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        self.queries.append(keys)
        assert keys["PatientID"] == "4711"
        assert all("*" not in value for value in keys.values())
        span = keys.get("StudyDate", "")
        self._refuse(span, "ModalitiesInStudy" in keys)
        ignored = {"NumberOfPatientRelatedStudies"}
        ignored |= {"StudyDate"} if self.dates == "ignored" else set()
        ignored |= {"ModalitiesInStudy"} if self.modalities == "ignored" else set()
        wanted = {keyword: value for keyword, value in keys.items() if keyword not in ignored}
        matching = [one for one in self.held if matches(one, wanted)]
        if span and self.dates == "empty":
            matching = []
        if self.dates == "last day left out":
            matching = [one for one in matching if not span or one.study_date != span[-8:]]
        if self.counts in ("study", "low") and "NumberOfPatientRelatedStudies" in keys:
            number = len(self.held) if self.counts == "study" else 0
            extra = (("NumberOfPatientRelatedStudies", str(number)),)
            matching = [replace(one, extra_attributes=extra) for one in matching]
        answers = [one for one in matching for _ in range(self.repeats)]
        cut = len(answers) > self.cap if self.announced else len(answers) >= self.cap
        sent = answers[: self.cap]
        unique = tuple({one.study_uid: one for one in sent}.values())
        return StudyQueryResult(unique, not cut, "a limit" if cut else "", answer_count=len(sent))

    def count_studies(self, patient_id: str) -> int | None:
        self.queries.append({"PatientID": patient_id})
        return len(self.held) if self.counts == "patient" else None

    def _refuse(self, span: str, by_modality: bool) -> None:
        is_open = span.startswith("-") or span.endswith("-")
        if span and (self.dates == "refused" or (self.dates == "closed" and is_open)):
            raise QueryFailed("refused", status=0xA900)
        if by_modality and self.modalities == "refused":
            raise QueryFailed("refused", status=0xA900)


def run(archive: CappedArchive, keys: Mapping[str, str] = PATIENT, *, limit: int = 200) -> StudyQueryResult:
    budget = QueryBudget(limit)
    found = find_in_parts(archive.find, archive.count_studies, keys, TODAY, budget)
    assert len(archive.queries) == budget.used <= limit
    return found


def check_complete(archive: CappedArchive) -> None:
    found = run(archive)
    assert (found.complete, found.incomplete_reason) == (True, "")
    assert {one.study_uid for one in found.studies} == {one.study_uid for one in archive.held}


def check_not_proved(archive: CappedArchive, reason: str, keys: Mapping[str, str] = PATIENT) -> None:
    found = run(archive, keys)
    assert (found.complete, found.splittable) == (False, False)
    assert reason in found.incomplete_reason
    assert "4711" not in found.incomplete_reason


# -- dates


@pytest.mark.parametrize("cap", [2, 3, 5, 29])
def test_a_cut_answer_is_completed_by_ranges_of_dates(cap: int) -> None:
    archive = CappedArchive(month(30), cap=cap)
    check_complete(archive)
    assert len(archive.queries) < 8 * 30 // cap + 6


def test_the_count_of_the_patient_level_is_a_proof_too() -> None:
    check_complete(CappedArchive(month(9), counts="patient"))
    check_not_proved(CappedArchive(month(9) + studies(""), counts="patient"), "counts 10 studies")
    check_not_proved(CappedArchive(month(9), counts="low"), "studies without a date may be missing")


@pytest.mark.parametrize("day", ["20990101", "00010101", "18581231", "20260101"])
def test_a_study_in_the_future_or_before_dicom_is_in_a_range(day: str) -> None:
    check_complete(CappedArchive(month(9) + studies(day, modality="MR")))


def test_an_archive_that_refuses_open_ranges_gets_both_ends() -> None:
    archive = CappedArchive(month(9), dates="closed")
    check_complete(archive)
    assert archive.queries[-2]["StudyDate"].endswith("-99991231") or "00010101" in str(archive.queries)


def test_a_range_in_the_row_excludes_undated_studies() -> None:
    """Neither a count nor modalities are needed."""
    undated = studies("", modality="MR")
    for span in ("20190301-20190331", "20190301-", "-20190331"):
        archive = CappedArchive(month(9) + undated, counts="no", modalities="refused")
        found = run(archive, {**PATIENT, "StudyDate": span})
        assert found.complete
        assert len(found.studies) == 9
        assert "ModalitiesInStudy" not in str(archive.queries)


@pytest.mark.parametrize(
    ("dates", "reason"),
    [
        ("ignored", "does not match StudyDate"),
        ("empty", "the archive counts 9 studies"),
        ("refused", "refuses ranges of dates"),
    ],
)
def test_an_archive_without_ranges_proves_nothing(
    dates: Literal["ignored", "empty", "refused"], reason: str
) -> None:
    """Empty ranges are also refuted by the studies of the whole answer, where nothing is counted."""
    archive = CappedArchive(month(9), dates=dates)
    check_not_proved(archive, reason)
    assert len(archive.queries) < 5


def test_a_part_that_lacks_a_known_study_proves_nothing() -> None:
    archive = CappedArchive(month(9), dates="last day left out")
    check_not_proved(archive, "leaves out studies", {**PATIENT, "StudyDate": "20190101-20190401"})


def test_a_study_date_that_is_none_is_in_no_part() -> None:
    held = studies("20190231", "20190228", "20190228", "20190301", "20190302", "20190303")
    span = {**PATIENT, "StudyDate": "20190201-20190401"}
    check_not_proved(CappedArchive(held, cap=3), "a study date that is not a date", span)


def test_limits_that_differ() -> None:
    """An answer that was believed is longer than one that is cut later."""
    held = month(8)

    def find(keys: Mapping[str, str]) -> StudyQueryResult:
        matching = [one for one in held if matches(one, keys)]
        limit = 2 if keys["StudyDate"].endswith("-20190303") else 6
        return StudyQueryResult(tuple(matching[:limit]), len(matching) <= limit, "a limit")

    found = find_in_parts(
        find, no_count, {**PATIENT, "StudyDate": "20190301-20190331"}, TODAY, QueryBudget(200)
    )
    assert "different numbers" in found.incomplete_reason


def test_a_single_day_beyond_the_limit() -> None:
    check_not_proved(CappedArchive(studies(*["20190315"] * 7)), "single day")


def test_a_limit_of_one() -> None:
    """An answer with one study is as long as the one that was cut, so it proves nothing."""
    archive = CappedArchive(month(3), cap=1)
    check_not_proved(archive, "a single answer")
    assert len(archive.queries) == 1


def test_an_answer_as_long_as_the_cut_one_is_not_believed() -> None:
    """The archive does not always report that it stopped."""
    archive = CappedArchive(studies(*["20190301"] * 7, *["20190302"] * 5))
    announced = archive.find

    def find(keys: Mapping[str, str]) -> StudyQueryResult:
        found = announced(keys)
        return replace(found, complete=found.complete or "StudyDate" in keys)

    assert not find_in_parts(find, no_count, PATIENT, TODAY, QueryBudget(200)).complete


# -- studies without a date


def test_an_undated_study_is_counted_but_not_found() -> None:
    archive = CappedArchive(month(9) + studies(""))
    check_not_proved(archive, "the archive counts 10 studies")


def test_an_undated_study_cannot_be_excluded_without_a_count() -> None:
    archive = CappedArchive(month(9), counts="no")
    check_not_proved(archive, "studies without a date may be missing")
    assert len(archive.queries) < 10, "no query by a modality whose answer would be cut again"


@pytest.mark.parametrize("counts", ["study", "patient", "low", "no"])
def test_an_undated_study_is_found_by_its_modality(counts: Literal["study", "patient", "low", "no"]) -> None:
    held = month(3) + studies("20180101", "20180102", "20180103", modality="US") + studies("", modality="SR")
    archive = CappedArchive(held, cap=5, counts=counts)
    check_complete(archive)
    assert {"PatientID": "4711", "ModalitiesInStudy": "VF"} in archive.queries


def test_a_count_refutes_both_partitions() -> None:
    """The study has no date, and a modality that DICOM does not define."""
    held = month(3) + studies("20180101", "20180102", "20180103", modality="US") + studies("", modality="QQ")
    check_not_proved(CappedArchive(held), "counts 7 studies of this patient, but only 6 were found")


def test_an_archive_that_has_no_modalities_has_no_second_partition() -> None:
    held = [replace(one, modalities="") for one in month(9)]
    archive = CappedArchive(held, counts="no")
    check_not_proved(archive, "studies without a date may be missing")
    assert "ModalitiesInStudy" not in str(archive.queries)


@pytest.mark.parametrize("modalities", ["ignored", "refused"])
def test_modalities_that_are_not_matched_prove_nothing(modalities: Literal["ignored", "refused"]) -> None:
    held = month(3) + studies("20180101", "20180102", "20180103", modality="US") + studies("", modality="SR")
    check_not_proved(
        CappedArchive(held, counts="no", modalities=modalities),
        "modality" if modalities == "refused" else "ModalitiesInStudy",
    )


def test_a_modality_is_never_sent_as_a_wildcard() -> None:
    held = studies("20180101", modality="X*") + month(3) + studies("20170101", "20170102", modality="US")
    check_not_proved(CappedArchive(held, counts="no"), "a modality that cannot be a key")


def test_a_row_with_a_modality_has_no_second_partition() -> None:
    archive = CappedArchive(month(9) + studies("20200101", modality="MR"))
    check_not_proved(archive, "without a date", {**PATIENT, "ModalitiesInStudy": "CT"})


# -- what is not split, and how many queries


@pytest.mark.parametrize(
    "keys", [{"StudyDate": "20190101"}, {"StudyDate": "20190101-20190101"}, {"StudyInstanceUID": "1.2.CT.0"}]
)
def test_a_row_with_the_day_or_the_study_is_not_split(keys: dict[str, str]) -> None:
    archive = CappedArchive(studies(*["20190101"] * 7), cap=0)
    assert not run(archive, {**PATIENT, **keys}).complete
    assert len(archive.queries) == 1


def test_an_archive_that_ignores_the_keys_of_the_row_is_not_listed() -> None:
    others = [replace(one, patient_id="0815") for one in month(9)]
    found = find_in_parts(
        lambda _: StudyQueryResult(tuple(others[:5]), False, "a limit"),
        no_count,
        PATIENT,
        TODAY,
        QueryBudget(200),
    )
    assert "does not match the keys" in found.incomplete_reason


def test_an_answer_that_lacks_a_uid_costs_no_further_query() -> None:
    nameless = Study("", "4711", "A9", "20190301")
    archive = CappedArchive([])

    def find(keys: Mapping[str, str]) -> StudyQueryResult:
        archive.queries.append(keys)
        return StudyQueryResult(tuple(month(2)), False, "1 lacks", splittable=False, unidentified=(nameless,))

    assert not find_in_parts(find, no_count, PATIENT, TODAY, QueryBudget(200)).complete
    explained = find_in_parts(find, no_count, {**PATIENT, "AccessionNumber": "A1"}, TODAY, QueryBudget(200))
    assert explained.complete, "the answer without a UID is of another accession"
    assert len(archive.queries) == 2


def test_a_part_that_lacks_a_uid_proves_nothing() -> None:
    archive = CappedArchive(month(9))

    def find(keys: Mapping[str, str]) -> StudyQueryResult:
        found = archive.find(keys)
        if "StudyDate" in keys and found.complete:
            return replace(found, complete=False, incomplete_reason="1 lacks", splittable=False)
        return found

    found = find_in_parts(find, no_count, PATIENT, TODAY, QueryBudget(200))
    assert "1 lacks" in found.incomplete_reason


def test_the_number_of_queries_is_limited() -> None:
    archive = CappedArchive(month(200), cap=5)
    assert "more than 20 queries" in run(archive, limit=20).incomplete_reason
    assert len(archive.queries) == 20


def test_a_cut_answer_without_studies_is_never_a_proof_that_there_are_none() -> None:
    budget = QueryBudget(200)

    def find(keys: Mapping[str, str]) -> StudyQueryResult:
        return StudyQueryResult((), len(keys) > 1, "busy")

    found = find_in_parts(find, no_count, PATIENT, TODAY, budget)
    assert not found.complete
    assert budget.used < 5


# -- any archive

_DAYS = st.sampled_from(["", "20190301", "20190302", "20190401", "20211231", "20990101", "00010101"])
_MODALITIES = st.sampled_from(["CT", "MR", "CT\\SR", "US"])
_ARCHIVES = st.builds(
    CappedArchive,
    st.lists(st.tuples(_DAYS, _MODALITIES), max_size=14).map(
        lambda all_: [Study(f"1.2.{n}", "4711", "", day, code) for n, (day, code) in enumerate(all_)]
    ),
    st.integers(1, 8),
    st.sampled_from(["matched", "ignored", "empty", "refused", "closed", "last day left out"]),
    st.sampled_from(["matched", "ignored", "refused"]),
    st.sampled_from(["study", "patient", "low", "no"]),
    st.integers(1, 2),
    st.booleans(),
)


@given(_ARCHIVES, st.sampled_from([{}, {"StudyDate": "20190301-"}, {"ModalitiesInStudy": "CT"}]))
@settings(max_examples=150, deadline=None)
def test_a_result_is_complete_with_all_studies_or_says_why_not(
    archive: CappedArchive, further: dict[str, str]
) -> None:
    keys = {**PATIENT, **further}
    # An archive that refuses the row's own keys, or does not match them, is not the subject.
    assume(archive.modalities == "matched" or "ModalitiesInStudy" not in further)
    assume(archive.dates == "matched" or "StudyDate" not in further)
    found = run(archive, keys)
    if found.complete:
        wanted = {one.study_uid for one in archive.held if matches(one, keys)}
        assert {one.study_uid for one in found.studies} == wanted
    else:
        assert found.incomplete_reason


def test_every_modality_is_there_once() -> None:
    assert len(set(MODALITIES)) == len(MODALITIES)
    assert matches_value("ModalitiesInStudy", "SR", "CT\\SR")
