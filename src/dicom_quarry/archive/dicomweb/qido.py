"""QIDO-RS (PS3.18 10.6): one query, page by page, until nothing suggests that there is more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
from pydicom.datadict import dictionary_VR

from dicom_quarry.archive.base import Answers
from dicom_quarry.archive.dicomweb import dicom_json
from dicom_quarry.archive.dicomweb.http_client import Http
from dicom_quarry.archive.dicomweb.status import in_words, retry_after
from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.errors import LocalProtocolError, Lost, QueryFailed, Rejected, RemoteProtocolError
from dicom_quarry.model import Level

#: Answers asked for at once; and as many as arouse suspicion: archives cut answers at 50, 100, 1000 silently.
PAGE = 1000
_SUSPICIOUS = 50

#: A page of this many bytes is no answer to a question of ours.
_MOST_BYTES = 1 << 27

#: So many times the silence that is borne one answer may take altogether.
_DRAGGING = 10

_ACCEPT = "application/dicom+json"

#: Further results there are, says a server (PS3.18 8.3.4.4, RFC 7234 5.5.7).
_MORE = "299"

#: Attributes that are always returned by the services (PS3.18 tables 10.6.3-3 to 10.6.3-5).
_RETURNED = {
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

_UNIQUE = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID", Level.IMAGE: "SOPInstanceUID"}


class Qido:
    """Queries of one server. ``before_query`` is called before each request; ``silence`` is in seconds."""

    def __init__(self, http: Http, *, silence: float, before_query: Callable[[], None]) -> None:
        self._http = http
        self._silence = silence
        self._before_query = before_query

    def run(self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int) -> Answers:
        """Ask for these attributes, at most ``cap`` answers; each page must bring something new.

        Keys of a level above go into the path. Raises QueryFailed, Rejected where the server is busy, Lost
        and Unreachable.
        """
        path, query = _resource(level, keys, returns)
        unique, tags = tag(_UNIQUE[level]), [tag(keyword) for keyword in returns]
        answers, seen, given = Answers(), set[str](), 0
        while True:
            page, more = self._page(path, [*query, ("limit", str(PAGE)), ("offset", str(given))], tags)
            new = [row for row in page if not row.get(unique) or row[unique] not in seen]
            seen.update(row[unique] for row in page if row.get(unique))
            if given and not any(row.get(unique) for row in new):
                if page and (more or self._heeds_limits(path, query)):
                    answers.why = f"the archive repeats its first {given} answers instead of going on"
                return answers
            answers.rows += new
            if len(answers.rows) > cap:
                del answers.rows[cap:]
                answers.why = f"the archive gave more than {cap} answers, and was stopped"
                return answers
            given += len(page)
            if not more and len(page) < _SUSPICIOUS:
                return answers

    def _heeds_limits(self, path: str, query: list[tuple[str, str]]) -> bool:
        """Whether a limit matters to the server: one that knows no pages has given all at once."""
        return len(self._page(path, [*query, ("limit", "1"), ("offset", "0")], ())[0]) <= 1

    def _page(
        self, path: str, query: list[tuple[str, str]], tags: Sequence[int]
    ) -> tuple[list[dict[int, str]], bool]:
        """The answers of one request, and whether the server says that there are more."""
        self._before_query()
        with self._http.get(path, query, accept=_ACCEPT, silence=self._silence) as response:
            status = response.status_code
            # An unknown study has no series and instances; but an address without QIDO-RS has no studies.
            if status == httpx.codes.NO_CONTENT or (status == httpx.codes.NOT_FOUND and path != "/studies"):
                return [], False
            if status != httpx.codes.OK:
                raise _failure(response)
            body = self._body(response)
        try:
            return dicom_json.read(body, tags), _MORE in response.headers.get("Warning", "")
        except RemoteProtocolError as damage:
            what = "a web page" if body.lstrip()[:1] == b"<" else f"something else: {damage}"
            said = (
                f"{self._http.base} answers a query with {what}: are its DICOMweb services at this address?"
            )
            raise QueryFailed(said, status=status, http=True) from None

    def _body(self, response: httpx.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            said = f"{self._http.base} sends its answer compressed, which was not asked for"
            raise QueryFailed(said, status=response.status_code, http=True)
        body, deadline = bytearray(), time.monotonic() + _DRAGGING * self._silence
        for piece in response.iter_raw():
            body += piece
            if len(body) > _MOST_BYTES:
                said = f"{self._http.base} answers a query with more than {_MOST_BYTES >> 20} MB"
                raise QueryFailed(said, status=response.status_code, http=True)
            if time.monotonic() > deadline:
                raise Lost(f"{self._http.base} drags an answer on for {_DRAGGING * self._silence:.0f} s")
        return bytes(body)


def _resource(
    level: Level, keys: Mapping[str, str], returns: Sequence[str]
) -> tuple[str, list[tuple[str, str]]]:
    """Path and query of a search (PS3.18 10.6.1.1): studies by keys, the rest below study and series."""
    left = {keyword: text for keyword, text in keys.items() if text}
    path = "/studies"
    if level is not Level.STUDY:
        path += f"/{segment(left.pop('StudyInstanceUID'))}"
        if level is Level.IMAGE and "SeriesInstanceUID" in left:
            path += f"/series/{segment(left.pop('SeriesInstanceUID'))}"
        path += "/series" if level is Level.SERIES else "/instances"
    query = [(keyword, _value(keyword, text)) for keyword, text in left.items()]
    query += [
        ("includefield", keyword) for keyword in returns if keyword not in _RETURNED[level] | left.keys()
    ]
    return path, query


def segment(uid: str) -> str:
    """A UID as a part of a path, of which nothing leads elsewhere; raises LocalProtocolError."""
    if not is_uid(uid):
        raise LocalProtocolError(f"a request for {uid!r}, which does not name one object")
    return quote(uid, safe="") if uid.strip(".") else "%2E" * len(uid)


def _value(keyword: str, text: str) -> str:
    """A key's value: a list of UIDs has commas (PS3.18 8.3.4.1)."""
    return text.replace("\\", ",") if dictionary_VR(tag(keyword)) == "UI" else text


def _failure(response: httpx.Response) -> QueryFailed | Rejected:
    status = response.status_code
    said = in_words(status)
    pause = retry_after(status, response.headers.get("Retry-After", ""), datetime.now(UTC))
    if pause is not None:
        return Rejected(said, permanent=False, retry_after=pause)
    return QueryFailed(said, status=status, http=True)
