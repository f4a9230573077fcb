"""Retrieval over DICOMweb (WADO-RS, PS3.18 10.4): requests, and the bodies of their responses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus

from dicom_quarry.archive.base import MonitorAction, RetrieveMonitor, RetrieveRequest, RetrieveResult, Verdict
from dicom_quarry.archive.dicomweb.content_coding import UnknownCoding, decode_body
from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.instance_receiver import InstanceReceiver
from dicom_quarry.archive.dicomweb.multipart import (
    MultipartEvent,
    MultipartMarker,
    MultipartReader,
    PartStart,
    parse_boundary,
)
from dicom_quarry.archive.dicomweb.search_request import quote_uid
from dicom_quarry.archive.dicomweb.status import describe, interpret_http, parse_retry_after
from dicom_quarry.archive.dicomweb.transport import Response
from dicom_quarry.errors import ConnectionLost, RemoteProtocolError, Unreachable

#: Files as they are stored, in any transfer syntax (PS3.18 8.7.3.5.2): the archive must not convert them.
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'

#: Seconds between two calls of the monitor, and the bytes in between that count as activity.
TICK = 1.0
_ACTIVITY_BYTES = 4096

#: After one of these verdicts the other resources of a retrieval are not requested.
_STOPPING_VERDICTS = frozenset({Verdict.RETRY, Verdict.CONFIGURATION, Verdict.CANCELLED, Verdict.LOST})


class _StoppedByMonitor(Exception):
    """The monitor ends the retrieval."""

    def __init__(self, action: MonitorAction) -> None:
        super().__init__(action)
        self.action = action


class WadoRetrieval:
    """One retrieval, which may need several requests: one for each series or instance."""

    def __init__(self, http: HttpClient, receiver: InstanceReceiver, monitor: RetrieveMonitor) -> None:
        self._http = http
        self._receiver = receiver
        self._monitor = monitor
        self._messages = receiver.errors
        self._received_bytes = 0
        self._checked_at = time.monotonic()

    def run(self, request: RetrieveRequest) -> RetrieveResult:
        """Fetch it. Raises Unreachable if nothing was requested, OperatorActionRequired for credentials."""
        verdicts: list[Verdict] = []
        pause: float | None = None
        for path in _resource_paths(request):
            try:
                verdict, pause = self._fetch(path)
            except _StoppedByMonitor as stopped:
                verdict = Verdict.CANCELLED if stopped.action is MonitorAction.CANCEL else Verdict.LOST
                self._messages.add("Quarry ended the retrieval")
            except (ConnectionLost, RemoteProtocolError) as lost:
                verdict = Verdict.LOST
                self._messages.add(str(lost))
            except Unreachable as error:
                if not verdicts:
                    raise
                verdict = Verdict.LOST
                self._messages.add(str(error))
            verdicts.append(verdict)
            if verdict in _STOPPING_VERDICTS:
                break
        return RetrieveResult(
            self._combine_verdicts(verdicts),
            completed=self._receiver.completed,
            failed=self._receiver.failed,
            comment=str(self._messages),
            retry_after=pause,
        )

    def _combine_verdicts(self, verdicts: list[Verdict]) -> Verdict:
        if verdicts[-1] in _STOPPING_VERDICTS:
            return verdicts[-1]
        if all(verdict is Verdict.UNSUPPORTED for verdict in verdicts):
            return Verdict.UNSUPPORTED
        if self._receiver.failed and not self._receiver.completed:
            return Verdict.RETRY
        whole = not self._receiver.failed and all(verdict is Verdict.SUCCESS for verdict in verdicts)
        return Verdict.SUCCESS if whole else Verdict.WARNING

    def _fetch(self, path: str) -> tuple[Verdict, float | None]:
        """Fetch one resource; return the verdict, and the pause in seconds that a busy archive wants."""
        with self._http.get(path, accept=_ACCEPT, tick=self._check_monitor) as response:
            status = response.status
            meaning = interpret_http(status)
            if meaning.verdict is not Verdict.SUCCESS:
                self._messages.add(describe(status))
            if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                verdict = self._read_body(response)
                return (verdict if meaning.verdict is Verdict.SUCCESS else meaning.verdict), None
            header = response.header("Retry-After")
            return meaning.verdict, parse_retry_after(status, header, datetime.now(UTC))

    def _read_body(self, response: Response) -> Verdict:
        content_type, coding = response.header("Content-Type"), response.header("Content-Encoding")
        boundary = parse_boundary(content_type)
        try:
            pieces = decode_body(response.iter_raw(), coding)
        except UnknownCoding as error:
            return self._unsupported(str(error))
        start = b"" if boundary is not None else _read_start(pieces)
        if start.lstrip(b"\r\n").startswith(b"--"):
            boundary = ""  # multipart, whatever its header states
        try:
            if boundary is not None:
                self._read_parts(response, pieces if coding else iter(()), MultipartReader(boundary), start)
            elif "html" in content_type.lower():
                self._messages.add(
                    "The archive answers with a web page: it is being maintained, or requires a login"
                )
                return Verdict.RETRY
            elif not _is_dicom_file(content_type, start):
                return self._unsupported(
                    "The archive answers with something that is neither multipart nor DICOM"
                )
            elif not _has_known_end(response):
                return self._unsupported("The archive sends a file without its length: a cut would not show")
            else:
                # The length is that of the compressed file.
                length = "" if coding else response.header("Content-Length")
                self._read_single_part(_chain(start, pieces), length)
        finally:
            self._receiver.finish()
        return Verdict.SUCCESS

    def _unsupported(self, reason: str) -> Verdict:
        self._messages.add(reason)
        return Verdict.UNSUPPORTED

    def _read_parts(
        self, response: Response, decoded: Iterable[bytes], reader: MultipartReader, start: bytes
    ) -> None:
        """Read a body with this ``start``: the pieces that were ``decoded``, then the bytes as they come."""
        for piece in _chain(start, iter(decoded)):
            self._on_bytes(len(piece))
            self._process(reader.feed(piece))
        while count := response.read_into(reader.get_buffer()):
            reader.buffer_updated(count)
            self._on_bytes(count)
            self._process(reader.events())
        self._process(reader.end())

    def _process(self, events: Iterable[MultipartEvent]) -> None:
        for event in events:
            match event:
                case memoryview():
                    self._receiver.write(event)
                case PartStart(headers):
                    self._receiver.begin(headers.get("content-length", ""))
                case MultipartMarker.PART_END:
                    self._receiver.end()
                case MultipartMarker.CLOSED:
                    pass

    def _read_single_part(self, pieces: Iterable[bytes], length: str) -> None:
        """Read one file without multipart: some servers answer a request for one instance so."""
        self._receiver.begin(length)
        for piece in pieces:
            self._on_bytes(len(piece))
            self._receiver.write(memoryview(piece))
        self._receiver.end()

    def _on_bytes(self, size: int) -> None:
        """Count bytes, and call the monitor once a second."""
        self._received_bytes += size
        if time.monotonic() - self._checked_at >= TICK:
            self._check_monitor()

    def _check_monitor(self) -> None:
        """End the retrieval if the monitor wants it. A trickle is not reported to it as activity."""
        self._checked_at = time.monotonic()
        if self._received_bytes >= _ACTIVITY_BYTES:
            self._monitor.on_activity(self._receiver.completed, None)
            self._received_bytes = 0
        action = self._monitor.next_action()
        if action is not MonitorAction.WAIT:
            raise _StoppedByMonitor(action)


def _resource_paths(request: RetrieveRequest) -> Iterator[str]:
    """Yield the paths of a study, of series, or of instances (PS3.18 table 10.4.1-1)."""
    study = f"/studies/{quote_uid(request.study_uid)}"
    if not request.series_uids:
        yield study
    for series_uid in request.series_uids:
        series = f"{study}/series/{quote_uid(series_uid)}"
        if not request.sop_uids:
            yield series
        for sop_uid in request.sop_uids:
            yield f"{series}/instances/{quote_uid(sop_uid)}"


#: The preamble of a DICOM file and its prefix (PS3.10 7.1).
_PREAMBLE_BYTES = 132


def _read_start(pieces: Iterator[bytes]) -> bytes:
    """Return the beginning of a body, enough to recognise a DICOM file."""
    start = b""
    while len(start) < _PREAMBLE_BYTES and (piece := next(pieces, b"")):
        start += piece
    return start


def _chain(start: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from pieces


def _is_dicom_file(content_type: str, start: bytes) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/dicom" or start[_PREAMBLE_BYTES - 4 : _PREAMBLE_BYTES] == b"DICM"


def _has_known_end(response: Response) -> bool:
    """Return True for a body with a length or chunks: else its end looks like a cut connection."""
    is_chunked = response.header("Transfer-Encoding").lower() == "chunked"
    return is_chunked or bool(response.header("Content-Length"))
