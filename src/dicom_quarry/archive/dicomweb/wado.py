"""One retrieval over WADO-RS (PS3.18 10.4): DICOM files out of multipart bodies, straight into the sink."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx

from dicom_quarry.archive.base import Answered, Ask, Patience, Verdict, Watch
from dicom_quarry.archive.dicomweb.http_client import Http
from dicom_quarry.archive.dicomweb.instance_receiver import Intake
from dicom_quarry.archive.dicomweb.multipart import Mark, MultipartReader, PartBegins, boundary_of
from dicom_quarry.archive.dicomweb.qido import segment
from dicom_quarry.archive.dicomweb.status import in_words, of_http, retry_after
from dicom_quarry.errors import Lost, RemoteProtocolError, Unreachable

#: Files as they are stored, whatever their transfer syntax (PS3.18 8.7.3.5.2): nothing is converted for us.
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'

#: Seconds between two looks at the watch, and the bytes that make a second one of life.
TICK = 1.0
_SIGN_OF_LIFE = 4096

#: After one of these the other resources of a retrieval are not asked for.
_ENDS = frozenset({Verdict.RETRY, Verdict.CONFIGURATION, Verdict.CANCELLED, Verdict.LOST})


class _GivenUp(Exception):
    """The watch has lost its patience."""

    def __init__(self, patience: Patience) -> None:
        super().__init__(patience)
        self.patience = patience


class Retrieval:
    """The answer to one question, which may take several requests: one for each series, or instance."""

    def __init__(self, http: Http, intake: Intake, watch: Watch) -> None:
        self._http = http
        self._intake = intake
        self._watch = watch
        self._why = intake.why
        self._heard = 0
        self._looked = time.monotonic()

    def run(self, ask: Ask) -> Answered:
        """Fetch it. Raises Unreachable where nothing could be asked, Unusable where we are not let in."""
        verdicts: list[Verdict] = []
        pause: float | None = None
        for path in _resources(ask):
            try:
                verdict, pause = self._fetch(path)
            except _GivenUp as given_up:
                verdict = Verdict.CANCELLED if given_up.patience is Patience.CANCEL else Verdict.LOST
                self._why.append("given up by this side")
            except (Lost, RemoteProtocolError) as lost:
                verdict = Verdict.LOST
                self._why.append(str(lost))
            except Unreachable as error:
                if not verdicts:
                    raise
                verdict = Verdict.LOST
                self._why.append(str(error))
            verdicts.append(verdict)
            if verdict in _ENDS:
                break
        return Answered(
            self._verdict(verdicts),
            completed=self._intake.completed,
            failed=self._intake.failed,
            comment="; ".join(dict.fromkeys(self._why)),
            retry_after=pause,
        )

    def _verdict(self, verdicts: list[Verdict]) -> Verdict:
        if verdicts[-1] in _ENDS:
            return verdicts[-1]
        if all(verdict is Verdict.UNSUPPORTED for verdict in verdicts):
            return Verdict.UNSUPPORTED
        if self._intake.failed and not self._intake.completed:
            return Verdict.RETRY
        whole = not self._intake.failed and all(verdict is Verdict.SUCCESS for verdict in verdicts)
        return Verdict.SUCCESS if whole else Verdict.WARNING

    def _fetch(self, path: str) -> tuple[Verdict, float | None]:
        """One resource: the verdict, and what a busy archive says of when to ask again."""
        with self._http.get(path, accept=_ACCEPT, tick=self._look) as response:
            status = response.status_code
            meaning = of_http(status)
            if meaning.verdict is not Verdict.SUCCESS:
                self._why.append(in_words(status))
            if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                verdict = self._read(response)
                return (verdict if meaning.verdict is Verdict.SUCCESS else meaning.verdict), None
            header = response.headers.get("Retry-After", "")
            return meaning.verdict, retry_after(status, header, datetime.now(UTC))

    def _read(self, response: httpx.Response) -> Verdict:
        content_type = response.headers.get("Content-Type", "")
        boundary = boundary_of(content_type)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return self._unusable("The archive sends its answer compressed, which was not asked for")
        try:
            if boundary is not None:
                self._read_parts(response, MultipartReader(boundary))
            elif _is_one_file(response):
                self._read_one(response)
            elif "html" in content_type.lower():
                self._why.append(
                    "The archive answers with a web page: it is being maintained, or wants a login"
                )
                return Verdict.RETRY
            else:
                return self._unusable(
                    "The archive answers with something that is neither multipart nor DICOM"
                )
        finally:
            self._intake.settle()
        return Verdict.SUCCESS

    def _unusable(self, why: str) -> Verdict:
        self._why.append(why)
        return Verdict.UNSUPPORTED

    def _read_parts(self, response: httpx.Response, reader: MultipartReader) -> None:
        for piece in response.iter_raw():
            self._heed(len(piece))
            for event in reader.feed(piece):
                match event:
                    case memoryview():
                        self._intake.write(event)
                    case PartBegins(headers):
                        self._intake.begin(headers.get("content-length", ""))
                    case Mark.PART_ENDS:
                        self._intake.end()
                    case Mark.CLOSED:
                        pass
        reader.end()

    def _read_one(self, response: httpx.Response) -> None:
        """A server may answer a request for one instance without multipart."""
        self._intake.begin(response.headers.get("Content-Length", ""))
        for piece in response.iter_raw():
            self._heed(len(piece))
            self._intake.write(memoryview(piece))
        self._intake.end()

    def _heed(self, size: int) -> None:
        """Bytes came. A trickle is no sign of life."""
        self._heard += size
        if time.monotonic() - self._looked >= TICK:
            if self._heard >= _SIGN_OF_LIFE:
                self._watch.sign_of_life(self._intake.completed, None)
                self._heard = 0
            self._look()

    def _look(self) -> None:
        """Ask the watch whether to go on."""
        self._looked = time.monotonic()
        patience = self._watch.patience()
        if patience is not Patience.WAIT:
            raise _GivenUp(patience)


def _resources(ask: Ask) -> Iterator[str]:
    """PS3.18 table 10.4.1-1: a study, a series, an instance."""
    study = f"/studies/{segment(ask.study_uid)}"
    if not ask.series_uids:
        yield study
    for series_uid in ask.series_uids:
        series = f"{study}/series/{segment(series_uid)}"
        if not ask.sop_uids:
            yield series
        for sop_uid in ask.sop_uids:
            yield f"{series}/instances/{segment(sop_uid)}"


def _is_one_file(response: httpx.Response) -> bool:
    """A file alone, whose end can be told from a connection that was cut: by its length, or its chunks."""
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    return media_type == "application/dicom" and framed
