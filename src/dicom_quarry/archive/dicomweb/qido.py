"""Queries over DICOMweb (QIDO-RS, PS3.18 10.6), and the DICOM JSON Model of their results (annex F)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from pydicom.datadict import dictionary_VR

from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.paging import (
    PAGE_SIZE,
    Page,
    PagedResults,
    announces_more,
    may_refuse_limit,
    next_limit,
)
from dicom_quarry.archive.dicomweb.status import describe, interpret_http, parse_retry_after
from dicom_quarry.archive.dicomweb.transport import Response
from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.archive.instance_listing import get_count, get_text
from dicom_quarry.errors import ConnectionLost, LocalProtocolError, QueryFailed, Rejected, RemoteProtocolError
from dicom_quarry.model import Level


def parse_datasets(text: bytes, tags: Iterable[int]) -> list[dict[int, str]]:
    """Return these attributes of every dataset in an array, by tag; several values are joined by backslashes.

    An attribute without a value is ``""``. An attribute that is absent or not text is left out. Raises
    RemoteProtocolError for anything but an array of datasets.
    """
    try:
        datasets = json.loads(text, parse_int=_parse_int)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("not JSON") from None
    if not isinstance(datasets, list) or not all(isinstance(one, dict) for one in datasets):
        raise RemoteProtocolError("not an array of datasets (PS3.18 F.2)")
    wanted = [(tag, f"{tag:08X}") for tag in tags]
    return [
        {tag: value for tag, key in wanted if (value := _attribute_text(one.get(key))) is not None}
        for one in datasets
    ]


def _parse_int(digits: str) -> int | str:
    """Return an integer; as text if it is longer than any of DICOM, as Python refuses to convert some."""
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits


def _attribute_text(attribute: Any) -> str | None:
    if not isinstance(attribute, dict):
        return None
    values = attribute.get("Value", [])
    if not isinstance(values, list):
        return None
    texts = [_value_text(value) for value in values]
    return "\\".join(text.strip(" \0") for text in texts if text is not None)


def _value_text(value: Any) -> str | None:
    """Return a value as a dataset has it; None for an item of a sequence, and for anything unusable."""
    match value:
        case None:
            return ""  # a value that is empty, among others (PS3.18 F.2.5)
        case str():
            # Half a surrogate pair cannot be stored as text; two values must not become one.
            return value.encode("utf-8", "xmlcharrefreplace").decode("utf-8")
        case bool():
            return None
        case int():
            return str(value)
        case float():
            return str(int(value)) if value.is_integer() else str(value)
        case {"Alphabetic": _} | {"Ideographic": _} | {"Phonetic": _}:
            # PS3.18 F.2.2: the component groups of a person's name.
            groups = [value.get(group) or "" for group in ("Alphabetic", "Ideographic", "Phonetic")]
            texts = [_value_text(group) or "" if isinstance(group, str) else "" for group in groups]
            return "=".join(texts).rstrip("=")
    return None


#: An integer of DICOM has at most 20 digits (UV, SV: PS3.5 6.2).
_MAX_INTEGER_DIGITS = 100

#: Most bytes of one page of results.
_MAX_BODY_BYTES = 1 << 27

#: One page may take this many times the longest silence.
_BODY_TIMEOUT_FACTOR = 10

_ACCEPT = "application/dicom+json"

#: Most bytes of the text of a refusal.
_MAX_REFUSAL_BYTES = 1 << 16

#: Attributes that are always returned by the services (PS3.18 tables 10.6.3-3 to 10.6.3-5).
_DEFAULT_ATTRIBUTES = {
    Level.STUDY: {
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "InstanceAvailability",
        "ModalitiesInStudy",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    },
    Level.SERIES: {
        "Modality",
        "SeriesDescription",
        "SeriesInstanceUID",
        "SeriesNumber",
        "NumberOfSeriesRelatedInstances",
    },
    Level.IMAGE: {"SOPClassUID", "SOPInstanceUID", "InstanceNumber", "SeriesInstanceUID"},
}

_UNIQUE_KEYS = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

_COUNT_KEYS = {
    Level.STUDY: "NumberOfStudyRelatedInstances",
    Level.SERIES: "NumberOfSeriesRelatedInstances",
}

#: Keys that an answer has as they are, unless the archive ignores them.
_EXACT_KEYS = ("PatientID", "AccessionNumber")

#: Studies that show whether the archive heeds a key.
_MANY_STUDIES = 200

#: Results whose instances are listed to see a longer page, where the archive has no counts.
_UNCOUNTED_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class _Search:
    """A search: its path and query, and the tags to return."""

    level: Level
    path: str
    query: list[tuple[str, str]]
    tags: list[int]


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
        self._http = http
        self._read_timeout = read_timeout
        self._before_query = before_query
        self._longest_page = longest_page
        self._limit: int | None = PAGE_SIZE
        self._accepted_levels: set[Level] = set()  # levels at which a limit was accepted

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
        search = _build_search(level, keys, returns)
        results = self._read_pages(search, keys, cap, expected_count)
        if results.list_changed:  # while it was read: it may be at rest now
            again = self._read_pages(search, keys, cap, expected_count)
            if not again.found.incomplete_reason and again.includes(results):
                results = again
        return results.found

    def _read_pages(
        self, search: _Search, keys: Mapping[str, str], cap: int, expected_count: int | None
    ) -> PagedResults:
        """Read a list from its beginning to its end."""
        unique = _UNIQUE_KEYS[search.level]
        named_uids = {uid for uid in keys.get(unique, "").split("\\") if uid}
        results = PagedResults(tag(unique), expected_count=expected_count, named_uids=named_uids)
        found = results.found
        while True:
            try:
                page = self._fetch_page(search, results.received)
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
                found.incomplete_reason = f"the archive gave more than {cap} answers, and was stopped"
            elif not page.rows:
                results.end_by_empty_page()
            elif not brings_new:
                if not self._is_whole(search, keys, results):
                    results.end_by_repetition()
            elif not (results.is_proved or _ignores_keys(search.level, keys, found.rows)):
                continue
            return results

    def _is_whole(self, search: _Search, keys: Mapping[str, str], results: PagedResults) -> bool:
        """Return True if the results are whole, though the server repeats or refuses what follows."""
        if results.contradicts_end or results.is_whole(self._longest_page):
            return not results.contradicts_end
        return self._request_longer_page(search.level, keys, results) and results.is_whole(self._longest_page)

    def _request_longer_page(self, level: Level, keys: Mapping[str, str], results: PagedResults) -> bool:
        """List the instances of a result; True if that page is longer than the last of a search.

        It shows that the server does not cut each page at the length of that one. The result is the largest
        one; where the archive has no counts a few are tried.
        """
        length = len(results.last_page.rows)
        return level is not Level.IMAGE and any(
            self._has_longer_page({**keys, _UNIQUE_KEYS[level]: uid}, length)
            for uid in _likely_large(level, results.found.rows, length)
        )

    def _has_longer_page(self, keys: Mapping[str, str], length: int) -> bool:
        search = replace(_build_search(Level.IMAGE, keys, ("SOPInstanceUID",)), query=[])
        try:
            return len(self._fetch_page(search, 0).rows) > length
        except QueryFailed:
            return False

    def _fetch_page(self, search: _Search, offset: int) -> Page:
        """Return the results from an offset on, with the largest limit that the server allows."""
        limit, refusals, first_refusal = self._limit, 0, None
        while True:
            page, refusal, text = self._request_page(search, limit, offset)
            if refusal is None:
                break
            refusals, first_refusal = refusals + 1, first_refusal or refusal
            if limit is None or not may_refuse_limit(
                refusal.status, text, was_accepted=search.level in self._accepted_levels
            ):
                raise first_refusal
            limit = next_limit(text, limit, refusals)
        if refusals:
            self._limit = limit
        if limit is not None:
            self._accepted_levels.add(search.level)
        self._longest_page = max(self._longest_page, len(page.rows))
        return page

    def _request_page(
        self, search: _Search, limit: int | None, offset: int
    ) -> tuple[Page, QueryFailed | None, str]:
        """Return the results of one request; or why it is refused, with the text of the refusal."""
        query = list(search.query)
        if limit is not None:
            query.append(("limit", str(limit)))
        if limit is not None or offset:
            query.append(("offset", str(offset)))
        self._before_query()
        with self._http.get(search.path, query, accept=_ACCEPT, read_timeout=self._read_timeout) as response:
            status = response.status
            if _is_empty_page(status, search.path, offset):
                return Page(announces_more=announces_more(response.header("Warning"))), None, ""
            if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                return Page(), *_read_refusal(response)
            body = self._read_body(response)
        if offset and not body.strip():
            return Page(), None, ""
        try:
            rows = parse_datasets(body, search.tags)
        except RemoteProtocolError as damage:
            content = "a web page" if body.lstrip()[:1] == b"<" else f"something else ({damage})"
            detail = f"{self._http.base} answers a query with {content}. Check its address"
            raise QueryFailed(detail, status=status, is_http=True) from None
        more = announces_more(response.header("Warning"))
        return Page(rows, limit, more, is_partial=status == HTTPStatus.PARTIAL_CONTENT), None, ""

    def _read_body(self, response: Response) -> bytes:
        if response.header("Content-Encoding", "identity").lower() != "identity":
            detail = f"{self._http.base} sends a compressed response, which was not requested"
            raise QueryFailed(detail, status=response.status, is_http=True)
        timeout = _BODY_TIMEOUT_FACTOR * self._read_timeout
        body, deadline = bytearray(), time.monotonic() + timeout
        for piece in response.iter_raw():
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                detail = f"{self._http.base} answers a query with more than {_MAX_BODY_BYTES >> 20} MB"
                raise QueryFailed(detail, status=response.status, is_http=True)
            if time.monotonic() > deadline:
                raise ConnectionLost(
                    f"{self._http.base} did not complete its response within {timeout:.0f} s"
                )
        return bytes(body)


def _likely_large(level: Level, rows: Sequence[Mapping[int, str]], length: int) -> list[str]:
    """Return the UID of the largest result if it has more than ``length`` instances.

    Without any count it returns the UIDs of the first few results.
    """
    counts = {
        uid: get_count(row, _COUNT_KEYS[level])
        for row in rows
        if is_uid(uid := get_text(row, _UNIQUE_KEYS[level]))
    }
    known = {uid: count for uid, count in counts.items() if count is not None}
    if not known:
        return list(counts)[:_UNCOUNTED_SAMPLES]
    largest = max(known, key=known.__getitem__)
    return [largest] if known[largest] > length else []


def _build_search(level: Level, keys: Mapping[str, str], returns: Sequence[str]) -> _Search:
    """Return path and query of a search (PS3.18 10.6.1.1): studies by keys, the rest by path."""
    remaining = {keyword: text for keyword, text in keys.items() if text}
    path = "/studies"
    if level is not Level.STUDY:
        path += f"/{quote_uid(remaining.pop('StudyInstanceUID'))}"
        if level is Level.IMAGE and "SeriesInstanceUID" in remaining:
            path += f"/series/{quote_uid(remaining.pop('SeriesInstanceUID'))}"
        path += "/series" if level is Level.SERIES else "/instances"
    query = [(keyword, _format_value(keyword, text)) for keyword, text in remaining.items()]
    query += [
        ("includefield", keyword)
        for keyword in returns
        if keyword not in _DEFAULT_ATTRIBUTES[level] | remaining.keys()
    ]
    return _Search(level, path, query, [tag(keyword) for keyword in returns])


def quote_uid(uid: str) -> str:
    """Return a UID as one segment of a path; raises LocalProtocolError where it does not name one object."""
    if not is_uid(uid):
        raise LocalProtocolError(f"a request for {uid!r}, which does not name one object")
    return quote(uid, safe="") if uid.strip(".") else "%2E" * len(uid)


def _format_value(keyword: str, text: str) -> str:
    """Return a key's value: a list of UIDs is separated by commas (PS3.18 8.3.4.1)."""
    return text.replace("\\", ",") if dictionary_VR(tag(keyword)) == "UI" else text


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


def _is_empty_page(status: int, path: str, offset: int) -> bool:
    """Return True for the statuses of a page without results.

    404 below a study means that it has none, and after the first page that the list has ended, as 416 does;
    404 for the first page of studies means that there is no QIDO-RS here.
    """
    if status == HTTPStatus.NOT_FOUND:
        return offset > 0 or path != "/studies"
    return status == HTTPStatus.NO_CONTENT or (
        offset > 0 and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    )


def _read_refusal(response: Response) -> tuple[QueryFailed, str]:
    """Return the failure of a query and its text; raises Rejected for a busy server."""
    status = response.status
    detail = describe(status)
    pause = parse_retry_after(status, response.header("Retry-After"), datetime.now(UTC))
    if pause is not None:
        raise Rejected(detail, permanent=False, retry_after=pause)
    text = bytearray()
    for piece in response.iter_raw():
        text += piece
        if len(text) > _MAX_REFUSAL_BYTES:
            break
    return QueryFailed(detail, status=status, is_http=True), text.decode("utf-8", "replace")
