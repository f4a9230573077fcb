"""The scenarios of DICOMweb: what a server does, and all that must come of it; data alone."""

from __future__ import annotations

import json
import re
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
    BareFeeds,
    Body,
    Compressed,
    CutBody,
    IgnoresSeries,
    LimitRefused,
    NoCounts,
    Pages,
    Partial,
    Parts,
    Reads,
    Rows,
    anything,
    at,
    file_of,
    lists_series,
    lists_study,
    searches,
    web_page,
)

REFUSED = ("failed", "archive_refused")
LIST_CUT_SHORT = ("unverified", "list_cut_short")
NOT_FOUND = ("not_found", "study_not_found")


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


class _NoMatch(WebFault):
    """The answer to a search that matches nothing: of the second row, and of the first query of a job."""

    def __init__(self, reply: WebResponse) -> None:
        super().__init__()
        self._reply = reply

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        hidden = request.query.values("AccessionNumber") == (STUDIES[1].accession,)
        return self._reply if request.is_search and (hidden or reply.status == 204) else reply


#: Studies with special characters in their accessions.
SPECIAL = tuple(
    make_study(STUDIES[0].patient, accession, date(2019, 3, day), (TINY, 1))
    for day, accession in enumerate(("A/1", "A/1 B-C", "A/1^#2"), start=1)
)


def _spelled(rows: list[dict[str, object]]) -> object:
    """Lower-case tags, values without arrays, and a single result without one."""
    changed = [
        {
            tag.lower(): {"vr": value.get("vr"), "Value": (value.get("Value") or [""])[0]}
            for tag, value in row.items()
            if isinstance(value, dict)
        }
        for row in rows
    ]
    return changed[0] if len(changed) == 1 else changed


def _in_latin_1(body: bytes) -> bytes:
    rows = [{**row, "00081030": {"vr": "LO", "Value": ["Schädel"]}} for row in json.loads(body)]
    return json.dumps(rows, ensure_ascii=False).encode("latin-1")


def _with_odd_values(rows: list[dict[str, object]]) -> object:
    odd = {
        "00081030": {"vr": "LO", "Value": ["\ud83d", "\U0001f600", "x" * 1_000_000]},
        "00080020": {"vr": "DA", "Value": ["99999999"]},
        "00080061": {"vr": "CS", "Value": [{"Alphabetic": {"a": [[[]]]}}, -7, 1e400]},
        "00201206": {"vr": "IS", "Value": [1 << 70]},
    }
    return [{**row, **odd} for row in rows]


#: Servers that a job passes over: name, fault, what is done, and the faults.
HTTP_SERVERS: tuple[tuple[str, str, str, Sequence[WebFault]], ...] = (
    ("gzip", "every body is compressed", "decodes it", [Compressed(really=True)]),
    ("deflate", "every body is deflated", "decodes it", [Compressed("deflate", really=True)]),
    ("gzip-in-name", "Content-Encoding: gzip, and no body is", "takes bodies as they are", [Compressed()]),
    ("json", "lower-case tags, values and single results without arrays", "reads them", [Rows(_spelled)]),
    ("latin-1", "results in Latin-1", "reads them", [Body(_in_latin_1)]),
    ("odd-values", "counts, dates and texts beyond measure", "counts the images", [Rows(_with_odd_values)]),
    (
        "old-media-type",
        "406 for application/dicom+json",
        "requests application/json",
        [Answer(406, which=lambda one: one.is_search and "dicom+json" in one.headers["Accept"])],
    ),
    *(
        (
            f"no-list-of-study-{status}{'-nor-counts' if more else ''}",
            f"{status} for the instances of a study: it lists those of series",
            "lists by series",
            [Answer(status, which=lists_study), *more],
        )
        for status, more in ((404, [NoCounts()]), (404, []), (405, []), (500, [NoCounts()]), (200, []))
    ),
    *(
        (
            f"no-list-of-series{'-nor-counts' if more else ''}",
            "404 for the series of a study, and for the instances of one",
            "lists the study",
            [
                Answer(404, which=lambda one: one.is_search and one.query.level == "SERIES"),
                Answer(404, which=lists_series),
                *more,
            ],
        )
        for more in ([], [NoCounts()])
    ),
    (
        "series-key",
        "lists of a series have all instances of the study",
        "counts an instance once, in its own series",
        [Answer(404, which=lists_study), IgnoresSeries()],
    ),
    ("line-feeds", "multipart bodies with bare line feeds", "reads them", [BareFeeds()]),
    ("no-boundary", "a header that names another boundary", "believes the body", [BareFeeds(boundary="y")]),
)

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
        "retrievals with a Content-Encoding that was not requested, and that Quarry cannot undo",
        "the report names the unexpected encoding",
        lambda: [_Only(Compressed("br"))],
        rows=(REFUSED, REFUSED),
        stored=(0, 0),
        requests=None,
        exit_code=1,
    ),
    *(
        WebScenario(
            f"http-{name}",
            fault,
            does,
            lambda faults=faults: faults,  # type: ignore[misc]
        )
        for name, fault, does, faults in HTTP_SERVERS
    ),
    *(
        WebScenario(
            f"no-match-{name}",
            f"the answer to a query that matches nothing is {fault}",
            "not found; the other row is complete",
            lambda reply=reply: [_NoMatch(reply)],  # type: ignore[misc]
            rows=(COMPLETE, NOT_FOUND),
            stored=(4, 0),
            requests=("STUDY", ""),
            exit_code=1,
        )
        for name, fault, reply in (
            ("404", "404", WebResponse(404)),
            ("404-text", "404 with a text", WebResponse(404, {"Content-Type": "text/plain"}, b"no match")),
            ("empty", "an empty body with status 200", WebResponse(200)),
            ("blank", "white space with status 200", WebResponse(200, {}, b" \r\n")),
            ("object", "an empty object", WebResponse(200, {}, b"{}")),
            ("array", "an empty array", WebResponse(200, {}, b"[]")),
        )
    ),
    *(
        WebScenario(
            f"values-{name}",
            f"the values of queries are read oddly: {fault}",
            "queries again in another spelling where nothing is found, and learns it",
            lambda change=change: [Reads(change)],  # type: ignore[misc]
            stored=(1, 1, 1),
            rows=(COMPLETE,) * 3,
            requests=("STUDY",) * 3,
            searches=1 + 3 * 3 + tries,
            studies=SPECIAL,
        )
        for name, fault, change, tries in (
            ("in-order", "not at all", str, 0),
            ("slash", "%2F is not decoded", lambda target: re.sub("%(?=2F)", "%25", target), 0),
            ("nothing", "nothing is decoded", lambda target: target.replace("%", "%25"), 3),
            (
                "strict",
                "only encoded characters count",
                lambda target: re.sub(r"(?<=A)/(?=1)", "", target),
                1,
            ),
        )
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
        "stops at the first page that brings nothing new, and lists each series by itself",
        lambda: [Pages(cap=3, offset=False, announces=True)],
        rows=(COMPLETE, COMPLETE),
        stored=(4, 4),
        requests=None,
        exit_code=0,
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
