"""The list of a study's instances: SERIES level, then IMAGE level of every series (PS3.4 C.4.1.3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.archive.dimse.status import interpret_failure
from dicom_quarry.archive.reasons import Reasons
from dicom_quarry.errors import ConnectionLost, QueryFailed
from dicom_quarry.model import InstanceRef, Level, Listing, Study, Task
from dicom_quarry.plurals import format_count
from dicom_quarry.system.numbers import parse_number

#: Most results of one query: no series has so many instances.
LISTING_CAP = 500_000

#: The largest integer string (PS3.5 6.2).
MAX_COUNT = 2**31 - 1

#: A query at a level with these keys. The keywords name the attributes to return; the number is that of the
#: results by a count of the archive, None where it has none.
QueryFunction = Callable[[Level, Mapping[str, str], Sequence[str], int | None], QueryRows]

#: Lists of studies in a row that differ from the archive's counts: then studies are listed by series.
_MAX_MISSES = 3

_SERIES_KEYS = ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
_IMAGE_KEYS = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID")


class StudyLister:
    """Lists a study by one query, for as long as an archive answers such queries with what it counts itself.

    The query names the study and no series (PS3.4 C.4.1.2.2.1). An archive that fails or answers nothing is
    not queried in this way again; ``gives_up`` is False for one that is configured to support it.
    """

    def __init__(self, *, gives_up: bool = True) -> None:
        self.is_supported = True
        self._gives_up = gives_up
        self._misses = 0

    def run(self, query: QueryFunction, task: Task, keys: Mapping[str, str]) -> Listing | None:
        """Return the list; None where the study has to be listed by series."""
        study = task.study
        if not self.is_supported or not study.instance_count or task.selection.series:
            return None
        try:
            result = query(Level.IMAGE, keys, _IMAGE_KEYS, study.instance_count)
        except (QueryFailed, ConnectionLost):
            result = QueryRows()
        listing = _match_counts(result, study)
        self._misses = 0 if listing else self._misses + 1
        if self._gives_up and (not result.rows or self._misses >= _MAX_MISSES):
            self.is_supported = False
        return listing


def _match_counts(result: QueryRows, study: Study) -> Listing | None:
    """Return the list if it has as many instances and series as the archive counts in the study."""
    rows = [row for row in result.rows if any(row.values())]
    refs = {}
    for row in rows:
        uid, series_uid = get_text(row, "SOPInstanceUID"), get_text(row, "SeriesInstanceUID")
        if is_uid(uid) and get_text(row, "StudyInstanceUID") in ("", study.study_uid):
            refs[uid] = InstanceRef(study.study_uid, series_uid, uid, get_text(row, "SOPClassUID"))
    series = dict.fromkeys(ref.series_uid for ref in refs.values())
    is_whole = len(refs) == len(rows) == study.instance_count and all(map(is_uid, series))
    if result.incomplete_reason or not is_whole or study.series_count not in (None, len(series)):
        return None
    return Listing(tuple(refs.values()), tuple(series), count=study.instance_count)


class InstanceLister:
    """Lists the instances of one task; ``keys`` name its study in every query.

    ``lowest_level`` is the lowest level that the archive supports. With ``relational_queries`` it lists the
    instances of a whole study in one query (PS3.4 C.4.1.2.2.1), instead of one for each series. Without
    ``requests_counts`` the counts of the series are not requested.
    """

    def __init__(
        self,
        query: QueryFunction,
        task: Task,
        keys: Mapping[str, str],
        *,
        lowest_level: Level = Level.IMAGE,
        relational_queries: bool = False,
        requests_counts: bool = True,
    ) -> None:
        self._series_keys = _SERIES_KEYS if requests_counts else _SERIES_KEYS[:-1]
        self._lowest_level = lowest_level
        self._relational_queries = relational_queries
        self._query = query
        self._task = task
        self._keys = keys
        self._instances: dict[str, InstanceRef] = {}
        self._claimed_counts: dict[str, int | None] = {}  # the instance count of every series
        self._modalities: dict[str, str] = {}
        self._by_image = True
        self._incomplete_reasons = Reasons()

    def run(self) -> Listing:
        """Query the series, then the instances of each; raises ArchiveError."""
        knows_series = self._lowest_level is not Level.STUDY and self._list_series()
        if self._lowest_level is not Level.IMAGE:
            self._by_image = False
        elif self._relational_queries and len(self._claimed_counts) != 1 and not self._task.selection.series:
            self._list_study()
        elif knows_series or self._task.selection.series:
            self._list_by_series()
        else:
            self._by_image = False
        claimed = self._max_claimed_count()
        if claimed and not self._instances:
            self._by_image = False
        series_uids = dict.fromkeys(
            [*self._claimed_counts, *(ref.series_uid for ref in self._instances.values())]
        )
        return Listing(
            tuple(self._instances.values()),
            tuple(series_uids),
            lists_instances=self._by_image,
            complete=not self._incomplete_reasons,
            count=claimed,
            incomplete_reason=str(self._incomplete_reasons),
            modalities=self._modalities,
        )

    def _list_by_series(self) -> None:
        for series_uid in self._claimed_counts:
            if not self._list_images(series_uid):
                break

    def _list_study(self) -> None:
        """List every instance of the study by one query; by series where that fails or lists too little.

        Without a list of series it is the only list.
        """
        try:
            result = self._query_level(Level.IMAGE, self._keys, _IMAGE_KEYS, self._max_claimed_count())
        except QueryFailed:
            if not self._claimed_counts:
                raise
            result = None
        rows = self._rows_of_study(result)
        if all(is_uid(get_text(row, "SeriesInstanceUID")) for row in rows):
            for row in rows:
                self._add(row, get_text(row, "SeriesInstanceUID"))
        listed = {ref.series_uid for ref in self._instances.values()}
        if any(claim != 0 and uid not in listed for uid, claim in self._claimed_counts.items()):
            self._list_by_series()
        elif result is None:
            self._by_image = False

    def _list_series(self) -> bool:
        """List the series; return False where the archive does not support the SERIES level."""
        selected = self._task.selection.series
        result = self._query_level(Level.SERIES, self._keys, self._series_keys, self._task.study.series_count)
        if result is None:
            self._claimed_counts = dict.fromkeys(sorted(selected))
            return False
        for row in result.rows:
            uid = get_text(row, "SeriesInstanceUID")
            if is_uid(uid) and (not selected or uid in selected):
                # A series that is in two studies, or listed twice, may have two counts.
                self._modalities[uid] = get_text(row, "Modality")
                claims = (self._claimed_counts.get(uid), get_count(row, "NumberOfSeriesRelatedInstances"))
                self._claimed_counts[uid] = max(
                    (claim for claim in claims if claim is not None), default=None
                )
        return True

    def _list_images(self, series_uid: str) -> bool:
        """List one series; return False where the archive does not support the IMAGE level."""
        keys = {**self._keys, "SeriesInstanceUID": series_uid}
        result = self._query_level(Level.IMAGE, keys, _IMAGE_KEYS, self._claimed_counts[series_uid])
        if result is None:
            self._by_image = False
            return False
        listed = False
        for row in self._rows_of_study(result):
            # Some archives ignore this key, and list the study.
            uid = get_text(row, "SeriesInstanceUID")
            listed = self._add(row, uid if is_uid(uid) else series_uid) or listed
        if not listed and self._claimed_counts[series_uid]:
            self._by_image = False
        return True

    def _add(self, row: Mapping[int, str], series_uid: str) -> bool:
        uid, selected = get_text(row, "SOPInstanceUID"), self._task.selection.series
        if not is_uid(uid) or (selected and series_uid not in selected):
            return False
        study_uid, sop_class = self._task.study.study_uid, get_text(row, "SOPClassUID")
        # An instance that is listed in two series arrives once.
        self._instances.setdefault(uid, InstanceRef(study_uid, series_uid, uid, sop_class))
        return True

    def _rows_of_study(self, result: QueryRows | None) -> list[dict[int, str]]:
        """Return the results without those of other studies, for archives that ignore the key of the study.

        Results that all name another study are kept.
        """
        rows = [] if result is None else result.rows
        names = [get_text(row, "StudyInstanceUID") for row in rows]
        if self._task.study.study_uid not in names:
            return rows
        own = ("", self._task.study.study_uid)
        return [row for row, name in zip(rows, names, strict=True) if name in own]

    def _query_level(
        self, level: Level, keys: Mapping[str, str], returns: Sequence[str], expected_count: int | None
    ) -> QueryRows | None:
        """Return the results and note any defect; None where the archive does not support this level."""
        try:
            result = self._query(level, keys, returns, expected_count)
        except QueryFailed as failure:
            if interpret_failure(failure).verdict is not Verdict.UNSUPPORTED:
                raise
            return None
        reason = result.incomplete_reason or describe_missing_uids(result.rows, returns[0])
        if reason:
            self._incomplete_reasons.add(reason)
        return result

    def _max_claimed_count(self) -> int | None:
        """Return the largest instance count of the selection that any result has."""
        claims = [claim for claim in self._claimed_counts.values() if claim is not None]
        totals = [sum(claims)] if claims else []
        study = self._task.study.instance_count
        if study is not None and not self._task.selection.series:
            totals.append(study)
        return max(totals, default=None)


def get_text(row: Mapping[int, str], keyword: str) -> str:
    """Return an attribute of a result, without padding; empty where it is missing."""
    return row.get(tag(keyword), "").strip(" \0")


def get_count(row: Mapping[int, str], keyword: str) -> int | None:
    """Return a count (IS) of a result; None where it is missing, or is none of PS3.5 6.2."""
    return parse_count(get_text(row, keyword))


def parse_count(text: str) -> int | None:
    """Return a count, None if the text is none.

    An integer string is at most 2^31 - 1. A larger number is no count: the ledger could not keep it.
    """
    return parse_number(text.removeprefix("+"), MAX_COUNT)


def describe_missing_uids(rows: Iterable[Mapping[int, str]], keyword: str) -> str:
    """Describe results that have values but not the level's unique key; empty if there are none.

    A result without any value is no defect: some archives end with one.
    """
    count = sum(1 for row in rows if any(row.values()) and not is_uid(get_text(row, keyword)))
    lacking = format_count(count, "answer of the archive lacks", "answers of the archive lack")
    return f"{lacking} a usable {keyword}" if count else ""
