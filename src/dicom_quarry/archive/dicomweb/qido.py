"""The DICOM JSON Model (PS3.18 annex F), as far as answers to queries need it: text by tag."""

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
    """The wanted attributes of every dataset in an array: several values joined by back-slashes.

    An attribute without a value is ``""``, one that is absent, or no text, is absent. Raises
    RemoteProtocolError for what is no array of datasets.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("it is no JSON") from None
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise RemoteProtocolError("it is no array of datasets (PS3.18 F.2)")
    wanted = [(tag, f"{tag:08X}") for tag in tags]
    return [
        {tag: value for tag, key in wanted if (value := _attribute_text(one.get(key))) is not None}
        for one in answer
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
    """A value as it stands in a dataset; None for a sequence's item, and for what stands nowhere."""
    match value:
        case None:
            return ""  # a value that is empty, among others (PS3.18 F.2.5)
        case str():
            # Half a surrogate pair is no text that can be kept; two values must not become one.
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


#: Answers asked for at once; and as many as arouse suspicion: archives cut answers at 50, 100, 1000 silently.
PAGE_SIZE = 1000
_MIN_CAPPED_PAGE = 50

#: A page of this many bytes is no answer to a question of ours.
_MAX_BODY_BYTES = 1 << 27

#: So many times the silence that is borne one answer may take altogether.
_BODY_TIMEOUT_FACTOR = 10

_ACCEPT = "application/dicom+json"

#: Further results there are, says a server (PS3.18 8.3.4.4, RFC 7234 5.5.7).
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
    """Queries of one server. ``before_query`` is called before each request; ``silence`` is in seconds."""

    def __init__(self, http: HttpClient, *, read_timeout: float, before_query: Callable[[], None]) -> None:
        self._http = http
        self._read_timeout = read_timeout
        self._before_query = before_query

    def search(self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int) -> QueryRows:
        """Ask for these attributes, at most ``cap`` answers; each page must bring something new.

        Keys of a level above go into the path. Raises QueryFailed, Rejected where the server is busy, Lost
        and Unreachable.
        """
        path, query = _build_search(level, keys, returns)
        unique, tags = tag(_UNIQUE_KEYS[level]), [tag(keyword) for keyword in returns]
        answers, seen, received_count = QueryRows(), set[str](), 0
        while True:
            page, more = self._fetch_page(
                path, [*query, ("limit", str(PAGE_SIZE)), ("offset", str(received_count))], tags
            )
            new = [row for row in page if not row.get(unique) or row[unique] not in seen]
            seen.update(row[unique] for row in page if row.get(unique))
            if received_count and not any(row.get(unique) for row in new):
                if page and (more or self._supports_limit(path, query)):
                    answers.incomplete_reason = (
                        f"the archive repeats its first {received_count} answers instead of going on"
                    )
                return answers
            answers.rows += new
            if len(answers.rows) > cap:
                del answers.rows[cap:]
                answers.incomplete_reason = f"the archive gave more than {cap} answers, and was stopped"
                return answers
            received_count += len(page)
            if not more and len(page) < _MIN_CAPPED_PAGE:
                return answers

    def _supports_limit(self, path: str, query: list[tuple[str, str]]) -> bool:
        """Whether a limit matters to the server: one that knows no pages has given all at once."""
        return len(self._fetch_page(path, [*query, ("limit", "1"), ("offset", "0")], ())[0]) <= 1

    def _fetch_page(
        self, path: str, query: list[tuple[str, str]], tags: Sequence[int]
    ) -> tuple[list[dict[int, str]], bool]:
        """The answers of one request, and whether the server says that there are more."""
        self._before_query()
        with self._http.get(path, query, accept=_ACCEPT, read_timeout=self._read_timeout) as response:
            status = response.status
            # An unknown study has no series and instances; but an address without QIDO-RS has no studies.
            if status == HTTPStatus.NO_CONTENT or (status == HTTPStatus.NOT_FOUND and path != "/studies"):
                return [], False
            if status != HTTPStatus.OK:
                raise _make_query_error(response)
            body = self._read_body(response)
        try:
            return parse_datasets(body, tags), _MORE_RESULTS_WARNING in response.header("Warning")
        except RemoteProtocolError as damage:
            what = "a web page" if body.lstrip()[:1] == b"<" else f"something else: {damage}"
            detail = (
                f"{self._http.base} answers a query with {what}: are its DICOMweb services at this address?"
            )
            raise QueryFailed(detail, status=status, is_http=True) from None

    def _read_body(self, response: Response) -> bytes:
        if response.header("Content-Encoding", "identity").lower() != "identity":
            detail = f"{self._http.base} sends its answer compressed, which was not asked for"
            raise QueryFailed(detail, status=response.status, is_http=True)
        body, deadline = bytearray(), time.monotonic() + _BODY_TIMEOUT_FACTOR * self._read_timeout
        for piece in response.iter_raw():
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                detail = f"{self._http.base} answers a query with more than {_MAX_BODY_BYTES >> 20} MB"
                raise QueryFailed(detail, status=response.status, is_http=True)
            if time.monotonic() > deadline:
                raise ConnectionLost(
                    f"{self._http.base} drags an answer on for {_BODY_TIMEOUT_FACTOR * self._read_timeout:.0f} s"
                )
        return bytes(body)


def _build_search(
    level: Level, keys: Mapping[str, str], returns: Sequence[str]
) -> tuple[str, list[tuple[str, str]]]:
    """Path and query of a search (PS3.18 10.6.1.1): studies by keys, the rest below study and series."""
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
    """A UID as a part of a path, of which nothing leads elsewhere; raises LocalProtocolError."""
    if not is_uid(uid):
        raise LocalProtocolError(f"a request for {uid!r}, which does not name one object")
    return quote(uid, safe="") if uid.strip(".") else "%2E" * len(uid)


def _format_value(keyword: str, text: str) -> str:
    """A key's value: a list of UIDs has commas (PS3.18 8.3.4.1)."""
    return text.replace("\\", ",") if dictionary_VR(tag(keyword)) == "UI" else text


def _make_query_error(response: Response) -> QueryFailed | Rejected:
    status = response.status
    detail = describe(status)
    pause = parse_retry_after(status, response.header("Retry-After"), datetime.now(UTC))
    if pause is not None:
        return Rejected(detail, permanent=False, retry_after=pause)
    return QueryFailed(detail, status=status, is_http=True)
