"""Queries over DICOMweb (QIDO-RS, PS3.18 10.6), and the DICOM JSON Model of their results (annex F)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from pydicom.datadict import dictionary_VR

from dicom_quarry.archive.base import QueryRows
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.status import describe, parse_retry_after
from dicom_quarry.archive.dicomweb.transport import Response
from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.errors import ConnectionLost, LocalProtocolError, QueryFailed, Rejected, RemoteProtocolError
from dicom_quarry.model import Level


def parse_datasets(text: bytes, tags: Iterable[int]) -> list[dict[int, str]]:
    """Return these attributes of every dataset in an array, by tag; several values are joined by backslashes.

    An attribute without a value is ``""``. An attribute that is absent or not text is left out. Raises
    RemoteProtocolError for anything but an array of datasets.
    """
    try:
        datasets = json.loads(text)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("not JSON") from None
    if not isinstance(datasets, list) or not all(isinstance(one, dict) for one in datasets):
        raise RemoteProtocolError("not an array of datasets (PS3.18 F.2)")
    wanted = [(tag, f"{tag:08X}") for tag in tags]
    return [
        {tag: value for tag, key in wanted if (value := _attribute_text(one.get(key))) is not None}
        for one in datasets
    ]


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
            return "=".join(_value_text(group) or "" for group in groups).rstrip("=")
    return None


#: Results per page, and a page that may have been cut: archives stop at 50, 100 or 1000 results silently.
PAGE_SIZE = 1000
_MIN_CAPPED_PAGE = 50

#: Most bytes of one page of results.
_MAX_BODY_BYTES = 1 << 27

#: One page may take this many times the longest silence.
_BODY_TIMEOUT_FACTOR = 10

_ACCEPT = "application/dicom+json"

#: A server's code for further results (PS3.18 8.3.4.4, RFC 7234 5.5.7).
_MORE_RESULTS_WARNING = "299"

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


class QidoClient:
    """Sends the queries to one server.

    ``read_timeout`` is the longest silence in seconds. ``before_query`` is called before each request and
    returns when it may be sent.
    """

    def __init__(self, http: HttpClient, *, read_timeout: float, before_query: Callable[[], None]) -> None:
        self._http = http
        self._read_timeout = read_timeout
        self._before_query = before_query

    def search(self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int) -> QueryRows:
        """Return at most ``cap`` results with these attributes; each page must bring a new one.

        Keys of a level above go into the path. Raises QueryFailed, Rejected where the server is busy,
        ConnectionLost and Unreachable.
        """
        path, query = _build_search(level, keys, returns)
        unique, tags = tag(_UNIQUE_KEYS[level]), [tag(keyword) for keyword in returns]
        result, seen, received_count = QueryRows(), set[str](), 0
        while True:
            page, more = self._fetch_page(
                path, [*query, ("limit", str(PAGE_SIZE)), ("offset", str(received_count))], tags
            )
            new = [row for row in page if not row.get(unique) or row[unique] not in seen]
            seen.update(row[unique] for row in page if row.get(unique))
            if received_count and not any(row.get(unique) for row in new):
                if page and (more or self._supports_limit(path, query)):
                    result.incomplete_reason = (
                        f"the archive repeats its first {received_count} answers instead of sending the next"
                    )
                return result
            result.rows += new
            if len(result.rows) > cap:
                del result.rows[cap:]
                result.incomplete_reason = f"the archive gave more than {cap} answers, and was stopped"
                return result
            received_count += len(page)
            if not more and len(page) < _MIN_CAPPED_PAGE:
                return result

    def _supports_limit(self, path: str, query: list[tuple[str, str]]) -> bool:
        """Whether the server heeds a limit: one without pages sends all results at once."""
        return len(self._fetch_page(path, [*query, ("limit", "1"), ("offset", "0")], ())[0]) <= 1

    def _fetch_page(
        self, path: str, query: list[tuple[str, str]], tags: Sequence[int]
    ) -> tuple[list[dict[int, str]], bool]:
        """Return the results of one request, and whether the server announces more."""
        self._before_query()
        with self._http.get(path, query, accept=_ACCEPT, read_timeout=self._read_timeout) as response:
            status = response.status
            # 404 below a study means that it has none; 404 for studies means that there is no QIDO-RS here.
            if status == HTTPStatus.NO_CONTENT or (status == HTTPStatus.NOT_FOUND and path != "/studies"):
                return [], False
            if status != HTTPStatus.OK:
                raise _make_query_error(response)
            body = self._read_body(response)
        try:
            return parse_datasets(body, tags), _MORE_RESULTS_WARNING in response.header("Warning")
        except RemoteProtocolError as damage:
            content = "a web page" if body.lstrip()[:1] == b"<" else f"something else ({damage})"
            detail = f"{self._http.base} answers a query with {content}. Check its address"
            raise QueryFailed(detail, status=status, is_http=True) from None

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


def _build_search(
    level: Level, keys: Mapping[str, str], returns: Sequence[str]
) -> tuple[str, list[tuple[str, str]]]:
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
    return path, query


def quote_uid(uid: str) -> str:
    """Return a UID as one segment of a path; raises LocalProtocolError where it does not name one object."""
    if not is_uid(uid):
        raise LocalProtocolError(f"a request for {uid!r}, which does not name one object")
    return quote(uid, safe="") if uid.strip(".") else "%2E" * len(uid)


def _format_value(keyword: str, text: str) -> str:
    """Return a key's value: a list of UIDs is separated by commas (PS3.18 8.3.4.1)."""
    return text.replace("\\", ",") if dictionary_VR(tag(keyword)) == "UI" else text


def _make_query_error(response: Response) -> QueryFailed | Rejected:
    status = response.status
    detail = describe(status)
    pause = parse_retry_after(status, response.header("Retry-After"), datetime.now(UTC))
    if pause is not None:
        return Rejected(detail, permanent=False, retry_after=pause)
    return QueryFailed(detail, status=status, is_http=True)
