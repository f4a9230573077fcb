"""One page of a search (QIDO-RS, PS3.18 8.3.4, 10.6.3): the request, and the response as servers write it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from http import HTTPStatus

from dicom_quarry.archive.dicomweb.content_coding import decode_body
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.json_model import parse_datasets
from dicom_quarry.archive.dicomweb.paging import (
    PAGE_SIZE,
    Page,
    announces_more,
    may_refuse_limit,
    next_limit,
)
from dicom_quarry.archive.dicomweb.search_request import SearchRequest
from dicom_quarry.archive.dicomweb.status import describe, parse_retry_after
from dicom_quarry.archive.dicomweb.transport import Response
from dicom_quarry.errors import QueryFailed, Rejected, RemoteProtocolError
from dicom_quarry.model import Level

#: Most bytes of one page of results, and objects and arrays in it: each attribute has one or two.
_MAX_BODY_BYTES = 16 << 20
_MAX_CONTAINERS = 1_000_000

#: Most bytes of the text of a refusal.
_MAX_REFUSAL_BYTES = 1 << 16

#: The media type of results, and its name before 2016, for servers that refuse the first.
_ACCEPT, _OLD_ACCEPT = "application/dicom+json", "application/json"

_SUCCESSES = (HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.PARTIAL_CONTENT)

#: Statuses of a search that matches nothing, or of a wrong address.
_NO_MATCHES = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

#: One study of any date: only the status of the response is read.
_ANY_STUDY = (("StudyDate", "19000101-"), ("limit", "1"))

#: Statuses by which a server shows that it has the service, even if it refuses this query.
_SERVED = frozenset({*_SUCCESSES, HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})


class PageClient:
    """Fetches pages from one server, and learns what it accepts; for the parameters see QidoClient.

    ``longest_page`` is the largest number of results that it ever sent.
    """

    def __init__(
        self, http: HttpClient, *, read_timeout: float, before_query: Callable[[], None], longest_page: int
    ) -> None:
        self.longest_page = longest_page
        self._http = http
        self._read_timeout = read_timeout
        self._before_query = before_query
        self._limit: int | None = PAGE_SIZE
        self._settled_levels: set[Level] = set()  # levels at which a limit was accepted, or is not the cause
        self._accept = _ACCEPT
        self._is_served = False  # a search for studies was answered

    def fetch(self, search: SearchRequest, offset: int) -> Page:
        """Return the results from an offset on, with the largest limit that the server allows.

        Raises QueryFailed, Rejected where the server is busy, ConnectionLost and Unreachable.
        """
        limit, accept, refusals, first_refusal = self._limit, self._accept, 0, None
        while True:
            page, refusal, text = self._request(search, limit, offset, accept)
            if refusal is None:
                break
            first_refusal = first_refusal or refusal
            if accept == _ACCEPT and refusal.status in (
                HTTPStatus.NOT_ACCEPTABLE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            ):
                accept = _OLD_ACCEPT
                continue
            refusals += 1
            if limit is None or not may_refuse_limit(
                refusal.status, text, was_accepted=search.level in self._settled_levels
            ):
                self._settled_levels.add(search.level)
                raise first_refusal
            limit = next_limit(text, limit, refusals)
        if first_refusal:
            self._limit, self._accept = limit, accept
        if limit is not None:
            self._settled_levels.add(search.level)
        self.longest_page = max(self.longest_page, len(page.rows))
        return page

    def _request(
        self, search: SearchRequest, limit: int | None, offset: int, accept: str
    ) -> tuple[Page, QueryFailed | None, str]:
        """Return the results of one request; or why it is refused, with the text of the refusal."""
        query = [*search.keys, *search.parameters]
        if limit is not None:
            query.append(("limit", str(limit)))
        if limit is not None or offset:
            query.append(("offset", str(offset)))
        self._before_query()
        with self._http.get(search.path, query, accept=accept, read_timeout=self._read_timeout) as response:
            status = response.status
            self._is_served |= search.level is Level.STUDY and status in _SUCCESSES
            if not _may_be_empty(status, offset) and status not in _SUCCESSES:
                return Page(), *_read_refusal(response)
            if status in _SUCCESSES and status != HTTPStatus.NO_CONTENT:
                return self._read_page(search, limit, response), None, ""
            refusal = QueryFailed(describe(status), status=status, is_http=True)
            more = announces_more(response.header("Warning"))
        # Below a study that was found, 404 means that the server has no such list.
        if status in _NO_MATCHES and not offset and not self._has_service(search.level):
            return Page(), refusal, ""
        return Page(announces_more=more), None, ""

    def _has_service(self, level: Level) -> bool:
        """Return False if 404 means that there is no QIDO-RS here, and not that nothing matches.

        A server that answers any search for studies has it.
        """
        if level is not Level.STUDY:
            return False
        if not self._is_served:
            self._before_query()
            with self._http.get(
                "/studies", _ANY_STUDY, accept=self._accept, read_timeout=self._read_timeout
            ) as response:
                self._is_served = response.status in _SERVED
        return self._is_served

    def _read_page(self, search: SearchRequest, limit: int | None, response: Response) -> Page:
        content_type = response.header("Content-Type")
        body = b""
        try:
            body = self._read_body(response)
            if not body.strip() and "html" in content_type.lower():
                raise RemoteProtocolError("an empty page")
            rows = parse_datasets(body, search.tags, _declared_charset(content_type))
        except RemoteProtocolError as damage:
            is_page = body.lstrip()[:1] == b"<" or "html" in content_type.lower()
            content = "a web page" if is_page else f"something else ({damage})"
            detail = f"{self._http.base} answers a query with {content}. Check its address"
            raise QueryFailed(detail, status=response.status, is_http=True) from None
        is_partial = response.status == HTTPStatus.PARTIAL_CONTENT
        return Page(rows, limit, announces_more(response.header("Warning")), is_partial=is_partial)

    def _read_body(self, response: Response) -> bytes:
        body = bytearray()
        # JSON never looks like gzip, so that a compressed body is recognised without a header, too.
        for piece in decode_body(response.iter_raw(), response.header("Content-Encoding") or "gzip"):
            body += piece
            if len(body) > _MAX_BODY_BYTES:
                raise self._too_large(response, f"{_MAX_BODY_BYTES >> 20} MB")
        if body.count(b"{") + body.count(b"[") > _MAX_CONTAINERS:
            raise self._too_large(response, f"{_MAX_CONTAINERS:,} objects")
        return bytes(body)

    def _too_large(self, response: Response, size: str) -> QueryFailed:
        detail = (
            f"{self._http.base} answers a query with more than {size} in one page. It ignores the number of "
            "answers that Quarry requests. Query this archive over DIMSE"
        )
        return QueryFailed(detail, status=response.status, is_http=True)


def _may_be_empty(status: int, offset: int) -> bool:
    """Return True for the statuses that servers have for a list without results, and behind its end."""
    return status in _NO_MATCHES or (offset > 0 and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


def _declared_charset(content_type: str) -> str:
    message = Message()
    message["Content-Type"] = content_type
    return message.get_content_charset("")


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
