"""The scenarios of DICOMweb: what a server does, and all that must come of it; data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_quarry.demo.dicomweb_services import WebRequest, WebResponse
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.faults.scenario import COMPLETE, STUDIES
from tests.scripted.web import ScriptedWeb, WebFault
from tests.scripted.web_faults import (
    Answer,
    Compressed,
    CutBody,
    Pages,
    Partial,
    Parts,
    anything,
    at,
    file_of,
    searches,
    web_page,
)

REFUSED = ("failed", "archive_refused")


@dataclass(frozen=True)
class WebScenario:
    """One fault, and what must come of it.

    ``requests`` are the retrievals of each study in order, by level; None if that depends on chance.
    """

    name: str
    fault: str
    does: str
    faults: Callable[[], Sequence[WebFault]]
    rows: tuple[tuple[str, str], ...] = (COMPLETE, COMPLETE)
    stored: tuple[int, ...] = (4, 4)
    requests: tuple[str, ...] | None = ("STUDY", "STUDY")
    exit_code: int = 0
    messages: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class _Only(WebFault):
    """Another fault, of retrievals alone."""

    def __init__(self, other: WebFault) -> None:
        super().__init__()
        self._other = other

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        return reply if request.is_search else self._other.reply(web, request, reply)


def _by_accession(request: WebRequest) -> bool:
    return request.is_search and bool(request.query.values("AccessionNumber"))


def _strangers(web: ScriptedWeb, files: list[bytes]) -> list[bytes]:
    """Another study's instance among them."""
    (stranger,) = generate_studies(1, seed=99, images=1)
    return [*files[:1], *map(file_of, stranger.instances()), *files[1:]]


SCENARIOS = (
    WebScenario("in-order", "none", "retrieves every study once", tuple),
    WebScenario(
        "partial",
        "206: a part of the study, and no more",
        "keeps it; retrieves a series of which nothing came, then the missing instances",
        lambda: [Partial()],
        requests=("STUDY SERIES IMAGE IMAGE", "STUDY SERIES IMAGE IMAGE"),
    ),
    WebScenario(
        "too-large",
        "413: a study is too much at once",
        "retrieves by series at once",
        lambda: [Answer(413, which=at("STUDY"))],
        requests=("STUDY SERIES SERIES", "STUDY SERIES SERIES"),
    ),
    WebScenario(
        "not-acceptable",
        "406: it does not send files as they are stored",
        "retrieves by series and instance, then reports that; the archive converts nothing for us",
        lambda: [Answer(406, which=lambda request: not request.is_search)],
        rows=(REFUSED, REFUSED),
        stored=(0, 0),
        requests=None,
        exit_code=1,
    ),
    WebScenario(
        "busy",
        "503 with Retry-After, for queries and retrievals alike",
        "leaves it alone for as long as it wants, all threads; then goes on by itself",
        lambda: [
            Answer(503, headers={"Retry-After": "1"}, which=anything, times=2),
            Answer(429, headers={"Retry-After": "1"}, which=at("STUDY"), times=1),
        ],
        requests=None,
        messages=("the archive is not available: The archive is too busy (HTTP 503)", "answers again"),
    ),
    WebScenario(
        "busy-without-a-time",
        "503 without Retry-After",
        "probes at growing intervals",
        lambda: [Answer(503, which=at("STUDY"), times=2)],
        requests=None,
    ),
    WebScenario(
        "cut-in-chunks",
        "a chunked body is cut in the middle of an instance",
        "keeps what was whole; retrieves the rest by series and instance",
        lambda: [CutBody("chunks", parts=1, which=at("STUDY"))],
        requests=("STUDY SERIES IMAGE", "STUDY SERIES IMAGE"),
    ),
    WebScenario(
        "cut-in-length",
        "a body is shorter than its Content-Length",
        "as above",
        lambda: [CutBody("length", parts=3, which=at("STUDY"))],
        requests=("STUDY IMAGE", "STUDY IMAGE"),
    ),
    WebScenario(
        "no-closing-boundary",
        "a body ends well, without its closing boundary",
        "a failure, never the last part: the part before the end is retrieved again",
        lambda: [CutBody("boundary", parts=4, which=at("STUDY"))],
        requests=("STUDY IMAGE", "STUDY IMAGE"),
    ),
    WebScenario(
        "web-page",
        "200 with a web page: maintenance, or a login",
        "is no image and no success: waits, and tries again",
        lambda: [web_page(times=2)],
        requests=None,
    ),
    WebScenario(
        "compressed",
        "a Content-Encoding that was not requested, in retrievals",
        "is not decoded: the report names the unexpected encoding",
        lambda: [_Only(Compressed())],
        rows=(REFUSED, REFUSED),
        stored=(0, 0),
        requests=None,
        exit_code=1,
    ),
    WebScenario(
        "strangers",
        "another study's instance among the requested ones",
        "is not stored; the rest of the study is complete",
        lambda: [Parts(_strangers, which=at("STUDY"))],
    ),
    WebScenario(
        "no-file-among-files",
        "a part that is no DICOM file",
        "costs itself alone: that instance is retrieved again",
        lambda: [Parts(lambda _, files: [b"<html>oops</html>", *files[1:]], which=at("STUDY"))],
        requests=("STUDY IMAGE", "STUDY IMAGE"),
    ),
    WebScenario(
        "endless-pages",
        "the offset of a query is ignored: every page is the first",
        "stops at the first page that brings nothing new; the list is not believed",
        lambda: [Pages(cap=3, offset=False, announces=True)],
        rows=(("unverified", "list_cut_short"),) * 2,
        stored=(4, 4),
        requests=None,
        exit_code=1,
    ),
    WebScenario(
        "no-content",
        "204 for a query that matches nothing",
        "not found, and nothing is retrieved",
        lambda: [Answer(204, which=searches)],
        rows=(("not_found", "study_not_found"),) * 2,
        stored=(0, 0),
        requests=("", ""),
        exit_code=1,
    ),
    WebScenario(
        "failing-query",
        "500 for queries, once we are at work",
        "tries three times, then reports that the query failed: never that nothing was found",
        lambda: [Answer(500, which=_by_accession)],
        rows=(("failed", "query_failed"),) * 2,
        stored=(0, 0),
        requests=("", ""),
        exit_code=1,
        silent=tuple(study.accession for study in STUDIES),
    ),
)
