"""Queries in parts, for a row whose answer the archive cut at a limit, and the proof that the parts suffice.

The parts have the keys of the row and one more, so they never find a patient that the row does not name. They
are believed only if all of this holds:

1. Every part is complete, and has fewer answers than any answer that was cut.
2. Every study of an answer matches the keys of its query. An archive that ignores ranges of dates, or a key
   of the row, cannot be queried in parts.
3. Every part has all studies that match it and are in any other answer, that of the whole row included.
4. The parts have every study with a date: they are ranges of dates without a gap, open at both ends, so that
   a study with a date in the future, or before DICOM, is in one of them.
5. A study without a date is excluded, by one of these:

   - the row has a range of dates, which such a study does not match;
   - the row has a Patient ID alone, and the archive's own Number of Patient Related Studies (PS3.4 C.6.2.1.1,
     C.6.1.1.2) is the number of studies that were found;
   - a second partition, by Modalities in Study: a part for every modality that was found and for all that
     PS3.3 C.7.3.1.1.1 defines. It is believed by the rules 1 to 3, and every study that was found is in one
     of its parts. A larger Number of Patient Related Studies refutes it.

6. The row needs no more queries than its budget.

Two independent partitions must miss the same study before one is lost: it would have neither a date nor a
modality that DICOM defines, nor be counted by the archive. Without a series a study has nothing to fetch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta

from dicom_quarry.archive.base import StudyQueryResult, Verdict
from dicom_quarry.archive.dimse.status import interpret_failure, strip_archive_comment
from dicom_quarry.archive.instance_listing import parse_count
from dicom_quarry.cohort.dates import range_bounds
from dicom_quarry.cohort.study_filter import matches, matches_value, may_match
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Study
from dicom_quarry.plurals import format_count

FindStudies = Callable[[Mapping[str, str]], StudyQueryResult]
CountStudies = Callable[[str], int | None]

_DAY = timedelta(days=1)

#: The first day of which there are images.
_FIRST_DAY = date(1895, 1, 1)

#: A modality that may be a key: a value from an archive must not become a wildcard.
_MODALITY = re.compile(r"[A-Za-z0-9_ ]{1,16}")

#: An attribute of studies and of patients.
STUDY_COUNT = "NumberOfPatientRelatedStudies"

#: The modalities of PS3.3 C.7.3.1.1.1: common, other and retired ones; and SC, which many devices use.
MODALITIES = (
    *("CT", "MR", "CR", "DX", "US", "XA", "RF", "NM", "PT", "MG", "SR", "PR", "OT", "KO", "SC", "DOC"),
    *("RTSTRUCT", "RTPLAN", "RTDOSE", "RTIMAGE", "RTRECORD", "RTINTENT", "RTRAD", "RTSEGANN", "PLAN", "SEG"),
    *("ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CTPROTOCOL", "DG", "DMS", "ECG", "EEG", "EMG"),
    *("EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "LEN", "LS", "M3D"),
    *("OAM", "OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "PA", "POS", "PX", "REG"),
    *("RESP", "RG", "RWV", "SM", "SMR", "SRF", "STAIN", "TEXTUREMAP", "TG", "VA", "XAPROTOCOL", "XC"),
    *("AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA", "FS", "LP", "MA", "MS", "OPR", "ST"),
    "VF",
)


@dataclass(slots=True)
class QueryBudget:
    """The queries that a row may still send to one archive, out of ``limit``."""

    limit: int
    used: int = 0

    @property
    def remaining(self) -> int:
        """The number of queries that are left."""
        return max(0, self.limit - self.used)


class _NotProvedError(Exception):
    """The parts do not prove that nothing is missing, for this reason; it contains no identifiers."""


def find_in_parts(
    find: FindStudies, count_studies: CountStudies, keys: Mapping[str, str], today: date, budget: QueryBudget
) -> StudyQueryResult:
    """Find studies; query in parts if the archive cuts the answer, and return them if the parts are proved.

    The result stays incomplete if they are not, and is then not ``splittable``; if the answer is incomplete
    for another reason than a limit, which costs no further query; or if the row has the day or the study,
    which cannot be split. A Series Instance UID is not a key at this level (PS3.4 C.6.2.1).

    ``count_studies`` returns the archive's own number of the studies of a patient, None if it gives none.
    """
    keys = {keyword: value for keyword, value in keys.items() if keyword != "SeriesInstanceUID"}
    budget.used += 1
    whole = _without_unrelated(find(keys), keys)
    start, end = range_bounds(keys.get("StudyDate", "-"))
    if whole.complete or not whole.splittable or "StudyInstanceUID" in keys or (start and start == end):
        return whole
    parts = _PartedQuery(find, count_studies, keys, whole, budget)
    try:
        parts.find_dated(_parse_date(start) or date.min, _parse_date(end) or date.max, today)
        if "StudyDate" not in keys:
            parts.exclude_undated()
        parts.check()
    except _NotProvedError as doubt:
        return StudyQueryResult(parts.studies, complete=False, incomplete_reason=str(doubt), splittable=False)
    return StudyQueryResult(parts.studies)


def _without_unrelated(found: StudyQueryResult, keys: Mapping[str, str]) -> StudyQueryResult:
    """Return a result as complete if it lacks only the UIDs of studies that the row does not want."""
    if found.unidentified and not any(may_match(study, keys) for study in found.unidentified):
        return replace(found, complete=True, incomplete_reason="", unidentified=())
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """A complete part: its further key, the studies of its answer, and the number of answers."""

    keyword: str
    value: str
    study_uids: frozenset[str]
    answer_count: int

    def includes(self, study: Study) -> bool:
        """Return True if the study matches the further key."""
        has = study.study_date if self.keyword == "StudyDate" else study.modalities
        return matches_value(self.keyword, self.value, has)


class _PartedQuery:
    """The parts of one query, whose answer ``whole`` was cut."""

    def __init__(
        self,
        find: FindStudies,
        count_studies: CountStudies,
        keys: Mapping[str, str],
        whole: StudyQueryResult,
        budget: QueryBudget,
    ) -> None:
        self._find = find
        self._count_by_patient = count_studies
        self._keys = keys
        self._budget = budget
        self._found: dict[str, Study] = {}
        self._parts: list[_Part] = []
        #: The fewest answers of an answer that was cut; None if none had any.
        self._cut_at: int | None = None
        self._open_ranges = True
        self._whole = whole

    @property
    def studies(self) -> tuple[Study, ...]:
        """All studies that were found so far."""
        return tuple(({one.study_uid: one for one in self._whole.studies} | self._found).values())

    def find_dated(self, first: date, last: date, today: date) -> None:
        """Find the studies with a date in this span by ranges of dates; raises _NotProvedError."""
        if not self._note_studies(self._whole, self._keys):
            raise _NotProvedError("the archive does not match the keys of the row, so parts prove nothing")
        if not self._is_below_limit(1):
            raise _NotProvedError("the archive's limit is a single answer")
        pending = list(self._halve(first, last, today))
        while pending:
            start, end = pending.pop()
            if self._query_dates(start, end):
                continue
            if start == end:
                raise _NotProvedError("the archive's limit is below the number of studies on a single day")
            pending += self._halve(start, end, today)
        if not self._found:
            raise _NotProvedError("the archive cuts an answer without studies, but no part has any")
        if "StudyDate" in self._keys and any(
            not any(part.includes(study) for part in self._parts) for study in self._found.values()
        ):
            raise _NotProvedError("the archive has a study date that is not a date")

    def exclude_undated(self) -> None:
        """Make sure that no study without a date is missing; raises _NotProvedError if it may be."""
        counted = self._count_studies()
        if counted == len(self._found):
            return
        needed = len({*self._known_modalities(), *MODALITIES})
        if not self._has_usable_modalities():
            missing = (
                f"; the archive counts {format_count(counted, 'study')} of this patient" if counted else ""
            )
            found = format_count(len(self._found), "study was", "studies were")
            raise _NotProvedError(f"{found} found, but studies without a date may be missing{missing}")
        if self._budget.remaining < needed:
            raise self._out_of_queries()
        self._query_modalities()
        if counted is not None and counted > len(self._found):
            raise _NotProvedError(
                f"the archive counts {format_count(counted, 'study')} of this patient, but only "
                f"{len(self._found):,} were found"
            )

    def check(self) -> None:
        """Compare every part with all studies that were found; raises _NotProvedError."""
        for part in self._parts:
            if not self._is_below_limit(part.answer_count):
                raise _NotProvedError("the archive's answers are cut at different numbers of studies")
            if any(part.includes(study) and uid not in part.study_uids for uid, study in self._found.items()):
                raise _NotProvedError("the archive leaves out studies that it has in other answers")

    # -- dates

    def _query_dates(self, start: date, end: date) -> bool:
        """Query a range; with both ends for an archive that refuses open ranges."""
        try:
            return self._query("StudyDate", self._format_range(start, end))
        except QueryFailed as failure:
            if not _is_refusal(failure):
                raise
            if not self._open_ranges or (date.min < start and end < date.max):
                raise _NotProvedError("the archive refuses ranges of dates") from failure
            self._open_ranges = False
            return self._query_dates(start, end)

    def _format_range(self, start: date, end: date) -> str:
        first = "" if start == date.min and self._open_ranges else _format_date(start)
        last = "" if end == date.max and self._open_ranges else _format_date(end)
        return f"{first}-{last}"

    def _halve(self, start: date, end: date, today: date) -> tuple[tuple[date, date], tuple[date, date]]:
        """Split a span in two: in the middle of the studies that are known, else of the probable days."""
        dates = (_parse_date(study.study_date) for study in self._found.values())
        days = sorted(day for day in dates if day is not None and start <= day <= end)
        if days:
            middle = days[(len(days) - 1) // 2]
        else:
            low = max(start, _FIRST_DAY) if end > _FIRST_DAY else start
            high = min(end, today) if start < today else end
            middle = low + (high - low) // 2
        middle = min(middle, end - _DAY)
        return (start, middle), (middle + _DAY, end)

    # -- studies without a date

    def _count_studies(self) -> int | None:
        """Return the archive's own number of the patient's studies; None if unknown or not of the row.

        Archives have it at STUDY level or at PATIENT level. A number below that of the studies that were
        found is of no use.
        """
        patient_id = self._keys.get("PatientID", "")
        if set(self._keys) != {"PatientID"} or not self._found or "*" in patient_id or "?" in patient_id:
            return None
        for count in (self._count_by_study, self._count_by_patient):
            self._spend_query()
            try:
                number = count(patient_id)
            except QueryFailed as failure:
                if not _is_refusal(failure):
                    raise
                continue
            if number is not None and number >= len(self._found):
                return number
        return None

    def _count_by_study(self, patient_id: str) -> int | None:
        uid = next(iter(self._found))
        found = self._find({"PatientID": patient_id, "StudyInstanceUID": uid, STUDY_COUNT: ""})
        texts = [
            dict(one.extra_attributes).get(STUDY_COUNT, "") for one in found.studies if one.study_uid == uid
        ]
        return parse_count(texts[0]) if texts else None

    def _has_usable_modalities(self) -> bool:
        """Return False if it is known beforehand that parts by modality prove nothing."""
        studies_by_modality = Counter(code for study in self._found.values() for code in _modalities(study))
        return (
            "ModalitiesInStudy" not in self._keys
            and all(any(_modalities(study)) for study in self._found.values())
            and all(self._is_below_limit(count) for count in studies_by_modality.values())
        )

    def _query_modalities(self) -> None:
        """Query every modality, those of the studies that are known first; raises _NotProvedError."""
        queried: set[str] = set()
        while codes := [
            code for code in (*sorted(self._known_modalities()), *MODALITIES) if code not in queried
        ]:
            for code in dict.fromkeys(codes):
                queried.add(code)
                if not _MODALITY.fullmatch(code):
                    raise _NotProvedError("the archive has a modality that cannot be a key")
                try:
                    is_complete = self._query("ModalitiesInStudy", code)
                except QueryFailed as failure:
                    if not _is_refusal(failure):
                        raise
                    raise _NotProvedError(
                        "studies without a date may be missing, and the archive refuses queries by modality"
                    ) from failure
                if not is_complete:
                    raise _NotProvedError(
                        f"studies without a date may be missing: the archive cuts even the answer for {code}"
                    )

    def _known_modalities(self) -> set[str]:
        return {code for study in self._found.values() for code in _modalities(study)}

    # -- one part

    def _query(self, keyword: str, value: str) -> bool:
        """Query one part; return False if its answer was cut too. Raises _NotProvedError."""
        self._spend_query()
        keys = {**self._keys, keyword: value}
        found = _without_unrelated(self._find(keys), keys)
        if not found.complete and not found.splittable:
            reason = strip_archive_comment(found.incomplete_reason)
            raise _NotProvedError(f"a part of the query cannot be used: {reason}")
        if not self._note_studies(found, keys):
            raise _NotProvedError(f"the archive does not match {keyword}, so parts prove nothing")
        if not found.complete or not self._is_below_limit(_answer_count(found)):
            return False
        uids = frozenset(study.study_uid for study in found.studies)
        self._parts.append(_Part(keyword, value, uids, _answer_count(found)))
        return True

    def _note_studies(self, found: StudyQueryResult, keys: Mapping[str, str]) -> bool:
        """Keep the studies and the limit that a result shows; return False if a study does not match."""
        if not all(matches(study, keys) for study in found.studies):
            return False
        self._found |= {study.study_uid: study for study in found.studies}
        if not found.complete and found.studies:
            self._cut_at = min(_answer_count(found), self._cut_at or _answer_count(found))
        return True

    def _is_below_limit(self, answer_count: int) -> bool:
        return self._cut_at is None or answer_count < self._cut_at

    def _spend_query(self) -> None:
        if not self._budget.remaining:
            raise self._out_of_queries()
        self._budget.used += 1

    def _out_of_queries(self) -> _NotProvedError:
        limit = format_count(self._budget.limit, "query")
        return _NotProvedError(f"the row needs more than {limit} (max-queries-per-row)")


def _modalities(study: Study) -> Iterator[str]:
    return (code.strip(" \0") for code in study.modalities.split("\\") if code.strip(" \0"))


def _is_refusal(failure: QueryFailed) -> bool:
    return interpret_failure(failure).verdict is Verdict.UNSUPPORTED


def _answer_count(found: StudyQueryResult) -> int:
    return max(found.answer_count, len(found.studies))


def _format_date(day: date) -> str:
    return day.isoformat().replace("-", "")  # strftime does not pad years


def _parse_date(text: str) -> date | None:
    """Return a date of the form YYYYMMDD, None for any other text."""
    digits = text.strip().replace(".", "")
    try:
        return date.fromisoformat(digits) if len(digits) == 8 and digits.isdigit() else None
    except ValueError:
        return None
