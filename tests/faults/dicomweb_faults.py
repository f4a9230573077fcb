"""The scenarios of DICOMweb: what a server does, and all that must come of it; data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from dicom_quarry.demo.dicomweb_services import WebRequest, WebResponse
from dicom_quarry.demo.synthetic_studies import (
    CR,
    TINY,
    DemoStudy,
    SeriesProfile,
    generate_studies,
    make_study,
)
from tests.faults.scenario import COMPLETE, STUDIES
from tests.scripted.web import ScriptedWeb, WebFault
from tests.scripted.web_faults import (
    Answer,
    Compressed,
    CutBody,
    LimitRefused,
    NoCounts,
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
LIST_CUT_SHORT = ("unverified", "list_cut_short")


@dataclass(frozen=True)
class WebScenario:
    """One fault, and what must come of it.

    ``requests`` are the retrievals of each study in order, by level; None if that depends on chance. Without
    a chance, ``searches`` is the number of queries. ``studies`` has those of the rows in the order of these.
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
    searches: int | None = None
    studies: tuple[DemoStudy, ...] = STUDIES


_SMALL_CR = replace(CR, rows=32, columns=32)


def _same_accession(
    count: int, images: int, *, days: int = 7, profiles: Sequence[SeriesProfile] = (TINY, _SMALL_CR)
) -> tuple[DemoStudy, ...]:
    """Make so many studies of one patient and one accession, days apart, of these profiles in turn."""
    return tuple(
        make_study(
            STUDIES[0].patient,
            "A13",
            date(2019, 1, 1) + timedelta(days=days * number),
            (profiles[number % len(profiles)], images),
            variant=number,
        )
        for number in range(count)
    )


#: A row with nine studies, and a row with a study of 30 instances.
MANY = (*_same_accession(9, images=2), make_study(STUDIES[1].patient, "A14", date(2019, 2, 2), (TINY, 30)))


def _paging(
    name: str,
    fault: str,
    does: str,
    *faults: WebFault,
    searches: int | None = None,
    counts: bool = True,
    second: tuple[str, str] = COMPLETE,
) -> WebScenario:
    """Make a scenario about pages; without ``counts`` the answers have no counts. ``second`` is of row 2."""
    return WebScenario(
        name,
        fault,
        does,
        lambda: faults if counts else (*faults, NoCounts()),
        rows=(COMPLETE, second),
        stored=(2,) * 9 + (30,),
        requests=("STUDY",) * 10,
        exit_code=0 if second == COMPLETE else 1,
        searches=searches,
        studies=MANY,
    )


def _cut_short(
    name: str, fault: str, does: str, *faults: WebFault, studies: Sequence[DemoStudy]
) -> WebScenario:
    """Make a scenario about pages in which the one row cannot be proved, and nothing is fetched."""
    return WebScenario(
        name,
        fault,
        does,
        lambda: faults,
        rows=(("failed", "query_cut_short"),),
        stored=(0,) * len(studies),
        requests=("",) * len(studies),
        exit_code=1,
        studies=tuple(studies),
    )


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
        rows=(LIST_CUT_SHORT, LIST_CUT_SHORT),
        stored=(4, 4),
        requests=None,
        exit_code=1,
    ),
    *(
        _paging(
            f"pages-of-{cap}",
            f"no page has more than {cap} answers, whatever the limit, and none has a count",
            "reads on until the next page brings nothing new: no study and no instance is missing",
            Pages(cap=cap, limit=limit),
            counts=False,
        )
        for cap, limit in ((2, True), (10, False), (12, True), (25, False))
    ),
    _paging(
        "pages-and-counts",
        "none: a search in order",
        "requests a second page of a search by accession, not of a list that is as long as the study's count",
        searches=1 + 2 * 2 + 10,
    ),
    *(
        _paging(
            f"last-page-{name}",
            f"a page behind the last one is {fault}",
            "takes that for the end of the list",
            Pages(cap=12, end=end),
            counts=False,
        )
        for name, fault, end in (
            ("404", "answered with 404", WebResponse(404)),
            ("empty-array", "an empty array", WebResponse(200, {}, b"[]")),
            ("empty-body", "an empty body with status 200", WebResponse(200)),
            ("416", "answered with 416", WebResponse(416)),
            ("400", "refused with 400, where the last one is shorter than those before", WebResponse(400)),
        )
    ),
    _paging(
        "pages-206",
        "pages of 7 answers with status 206",
        "takes them, and reads on",
        Pages(cap=7, status=206),
        counts=False,
    ),
    _paging(
        "pages-announced",
        "pages of 7 answers, with Warning 299 if they are full",
        "reads on, as without the warning",
        Pages(cap=7, announces=True),
        counts=False,
    ),
    *(
        _paging(
            f"limit-above-{largest}-refused-{status}",
            f"a limit of more than {largest} is refused with {status}{' and says so' if text else ''}",
            "learns the largest limit once, and keeps to it",
            LimitRefused(largest, status, text),
            searches=1 + tries + 2 * 2 + 10 + (largest < 30),
        )
        for status, largest, text, tries in (
            (400, 200, b"limit: must be less than or equal to 200", 1),
            (422, 250, b"", 2),
            (413, 20, b"", 7),
            (400, 17, b"Invalid value 1000 for parameter limit (1..17)", 1),
        )
    ),
    _paging(
        "overlapping-pages",
        "every page but the first sends 2 answers of the one before again",
        "counts an answer once, and queries again by date and by modality: nothing is missing",
        Pages(cap=7, overlap=2),
    ),
    _paging(
        "a-page-twice",
        "the second page is the first one again",
        "does not believe the list: queries studies again by date and modality, instances end as unverified",
        Pages(cap=7, doubled=7),
        second=LIST_CUT_SHORT,
    ),
    _paging(
        "no-pages",
        "limit and offset are ignored: everything comes at once",
        "sees from a longer page that no page is cut at this length",
        Pages(limit=False, offset=False),
    ),
    _paging(
        "first-page-for-ever",
        "limit and offset are ignored, and no answer is longer than 7",
        "does not believe a page of 7: queries again by date and modality, instances end as unverified",
        Pages(cap=7, limit=False, offset=False),
        second=LIST_CUT_SHORT,
    ),
    _cut_short(
        "first-page-of-a-day",
        "limit and offset are ignored, and no answer is longer than 2: two studies of one day",
        "cannot know whether there are more: the row fails, and nothing is fetched",
        Pages(cap=2, limit=False, offset=False),
        studies=_same_accession(2, images=1, days=0),
    ),
    _cut_short(
        "first-page-of-one-modality",
        "limit and offset are ignored, and no answer is longer than 7: nine CT studies",
        "cannot exclude a further one without a date: the row fails, and nothing is fetched",
        Pages(cap=7, limit=False, offset=False),
        studies=_same_accession(9, images=1, profiles=(TINY,)),
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
