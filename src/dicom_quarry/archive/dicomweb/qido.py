"""Queries over DICOMweb (QIDO-RS, PS3.18 10.6): lists that are read to their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus

from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.page_client import PageClient
from dicom_quarry.archive.dicomweb.paging import PagedResults
from dicom_quarry.archive.dicomweb.query_spelling import QuerySpelling, Spelling, answers_query, keep_matching
from dicom_quarry.archive.dicomweb.search_request import UNIQUE_KEYS, SearchRequest, build_search
from dicom_quarry.archive.dicomweb.status import interpret_http
from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.archive.instance_listing import get_count, get_text
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level
from dicom_quarry.plurals import format_count

_COUNT_KEYS = {
    Level.STUDY: "NumberOfStudyRelatedInstances",
    Level.SERIES: "NumberOfSeriesRelatedInstances",
}

#: Keys that an answer has as they are, unless the archive ignores them.
_EXACT_KEYS = ("PatientID", "AccessionNumber")

#: Studies that show whether the archive heeds a key.
_MANY_STUDIES = 200

_UNREADABLE = (
    "the archive does not decode URLs, so it cannot search for this value. "
    "Use another key, or query the archive over DIMSE"
)

#: Results whose instances are listed to see a longer page, where the archive has no counts.
_UNCOUNTED_SAMPLES = 3


class QidoClient:
    """Sends the queries to one server.

    ``read_timeout`` is the longest silence in seconds. ``before_query`` is called before each request and
    returns when it may be sent. ``longest_page`` is a number of results that the server is known to send in
    one page.
    """

    def __init__(
        self,
        http: HttpClient,
        *,
        read_timeout: float,
        before_query: Callable[[], None],
        longest_page: int = 0,
    ) -> None:
        self._pages = PageClient(
            http, read_timeout=read_timeout, before_query=before_query, longest_page=longest_page
        )
        self._spelling = QuerySpelling()

    def search(
        self,
        level: Level,
        keys: Mapping[str, str],
        returns: Sequence[str],
        cap: int,
        *,
        expected_count: int | None = None,
    ) -> QueryRows:
        """Return at most ``cap`` results with these attributes; each page must bring a new one.

        ``expected_count`` is the number of results by a count of the archive. Keys of a level above go into
        the path. Raises QueryFailed, Rejected where the server is busy, ConnectionLost and Unreachable.
        """
        search = build_search(level, keys, returns)
        lists: list[QueryRows] = []
        failure: QueryFailed | None = None
        for spelling, spelled_keys in self._spelling.candidates(search.keys):
            try:
                found = self._read_list(replace(search, keys=spelled_keys), keys, cap, expected_count)
            except QueryFailed as error:
                if interpret_http(error.status).verdict is not Verdict.UNSUPPORTED:
                    raise
                failure = failure or error
                continue
            is_answer = answers_query(spelling, search.keys, found.rows)
            if spelling is Spelling.WILDCARD:
                keep_matching(search.keys, found)
            if is_answer:
                self._spelling.learn(spelling, search.keys)
                return found
            lists.append(found)
        if not lists:
            raise failure or QueryFailed(_UNREADABLE, status=HTTPStatus.BAD_REQUEST, is_http=True)
        # Nothing is found only if no list was cut short.
        return next((one for one in lists if one.incomplete_reason), lists[0])

    def _read_list(
        self, search: SearchRequest, keys: Mapping[str, str], cap: int, expected_count: int | None
    ) -> QueryRows:
        """Read a list; once more if it changed while it was read, since it may be at rest now."""
        results = self._read_pages(search, keys, cap, expected_count)
        if results.list_changed:
            again = self._read_pages(search, keys, cap, expected_count)
            if not again.found.incomplete_reason and again.includes(results):
                return again.found
        return results.found

    def _read_pages(
        self, search: SearchRequest, keys: Mapping[str, str], cap: int, expected_count: int | None
    ) -> PagedResults:
        """Read a list from its beginning to its end."""
        unique = UNIQUE_KEYS[search.level]
        named_uids = {uid for uid in keys.get(unique, "").split("\\") if uid}
        results = PagedResults(tag(unique), expected_count=expected_count, named_uids=named_uids)
        found = results.found
        while True:
            try:
                page = self._pages.fetch(search, results.received)
            except QueryFailed as error:
                if not results.received:
                    raise
                if not self._is_whole(search, keys, results):
                    if interpret_http(error.status).verdict is not Verdict.UNSUPPORTED:
                        raise
                    results.end_by_refusal(error.status)
                return results
            brings_new = results.add(page)
            if len(found.rows) > cap:
                del found.rows[cap:]
                found.incomplete_reason = (
                    f"the archive gave more than {format_count(cap, 'answer')}, and was stopped"
                )
            elif not page.rows:
                results.end_by_empty_page()
            elif not brings_new:
                if not self._is_whole(search, keys, results):
                    results.end_by_repetition()
            elif not (results.is_proved or _ignores_keys(search.level, keys, found.rows)):
                continue
            return results

    def _is_whole(self, search: SearchRequest, keys: Mapping[str, str], results: PagedResults) -> bool:
        """Return True if the results are whole, though the server repeats or refuses what follows."""
        if results.contradicts_end or results.is_whole(self._pages.longest_page):
            return not results.contradicts_end
        has_longer = self._request_longer_page(search.level, keys, results)
        return has_longer and results.is_whole(self._pages.longest_page)

    def _request_longer_page(self, level: Level, keys: Mapping[str, str], results: PagedResults) -> bool:
        """List the instances of a result; True if that page is longer than the last of a search.

        It shows that the server does not cut each page at the length of that one. The result is the largest
        one; where the archive has no counts a few are tried.
        """
        length = len(results.last_page.rows)
        return level is not Level.IMAGE and any(
            self._has_longer_page({**keys, UNIQUE_KEYS[level]: uid}, length)
            for uid in _likely_large(level, results.found.rows, length)
        )

    def _has_longer_page(self, keys: Mapping[str, str], length: int) -> bool:
        search = replace(build_search(Level.IMAGE, keys, ("SOPInstanceUID",)), keys=[], parameters=[])
        try:
            return len(self._pages.fetch(search, 0).rows) > length
        except QueryFailed:
            return False


def _likely_large(level: Level, rows: Sequence[Mapping[int, str]], length: int) -> list[str]:
    """Return the UID of the largest result if it has more than ``length`` instances.

    Without any count it returns the UIDs of the first few results.
    """
    counts = {
        uid: get_count(row, _COUNT_KEYS[level])
        for row in rows
        if is_uid(uid := get_text(row, UNIQUE_KEYS[level]))
    }
    known = {uid: count for uid, count in counts.items() if count is not None}
    if not known:
        return list(counts)[:_UNCOUNTED_SAMPLES]
    largest = max(known, key=known.__getitem__)
    return [largest] if known[largest] > length else []


def _ignores_keys(level: Level, keys: Mapping[str, str], rows: Sequence[Mapping[int, str]]) -> bool:
    """Return True if none of many studies has an identifier of the search: the rest would be the archive."""
    return (
        level is Level.STUDY
        and len(rows) >= _MANY_STUDIES
        and any(
            (wanted := keys.get(keyword, "").strip().casefold())
            and not set(wanted) & set("*?\\")
            and all(wanted not in (text := get_text(row, keyword).casefold()) and text for row in rows)
            for keyword in _EXACT_KEYS
        )
    )
