"""Items 7 to 11: what comes of a C-MOVE."""

from __future__ import annotations

import random
from datetime import date

from dicom_quarry.demo.synthetic_studies import (
    CT,
    SR,
    DemoInstance,
    DemoSeries,
    generate_studies,
    make_patient,
    make_study,
)
from tests.faults.scenario import COMPLETE, PENDING, STUDIES, ArchiveRequests, Scenario, by_accession
from tests.scripted import faults, store_faults
from tests.scripted.store_faults import CannotSend, RefusedClass

REFUSED = ("failed", "archive_refused")
PARTIAL = ("partial", "instances_missing")

#: A job that stops before anything was fetched: nothing is lost, the rows wait for a person.
STOPPED = {"rows": (PENDING, PENDING), "stored": (0, 0), "exit_code": 4}


def _status(
    status: int, does: str, *, moves: tuple[str, ...], finds: tuple[int, int, int] | None
) -> Scenario:
    """A final status at the first two C-MOVEs, and nothing sent."""
    return Scenario(
        7,
        f"{status:04X}-at-first",
        f"C-MOVE ends with {status:04X} and nothing sent, twice",
        does,
        lambda: [faults.MoveStatus(status, times=2)],
        requests=ArchiveRequests(moves, finds, None),
    )


#: Three series of four instances each.
THREE = tuple(generate_studies(1, seed=9, series=3, images=4))
FIRST, SECOND, THIRD = THREE[0].series


def _of(*series: DemoSeries) -> list[DemoInstance]:
    """Return the instances of series."""
    return [one for one in THREE[0].instances() if one.series in series]


def _partly(
    name: str, fault: str, cannot: CannotSend, why: str, *, stored: int = 8, moves: str | None = None
) -> Scenario:
    """A study of which the archive cannot send a part, however often it is requested."""
    return Scenario(
        7,
        f"cannot-send-{name}",
        f"the archive cannot send {fault}",
        "retrieves the rest at once, by series and instance; the row is partial, with the archive's reason",
        lambda: [cannot],
        studies=THREE,
        rows=(PARTIAL,),
        stored=(stored,),
        exit_code=1,
        requests=ArchiveRequests(None if moves is None else (moves,), None, None, at_most=65),
        messages=(f"{12 - stored} instance", why),
        silent=("egister this AE title", "could not start", "is busy"),
    )


_UNABLE = "unable to process the request (C000)"

_CANNOT_SEND = (
    _partly(
        "a-series",
        "one of three series: every C-MOVE with it ends with C000, before anything was sent",
        CannotSend(_of(SECOND)),
        _UNABLE,
        moves="STUDY SERIES SERIES SERIES IMAGE:4" + " IMAGE:1" * 4 + " SERIES IMAGE:4" + " IMAGE:1" * 12,
    ),
    _partly(
        "scattered-instances",
        "an instance of each series (0110), and stops at it",
        CannotSend([_of(one)[2] for one in (FIRST, SECOND, THIRD)], 0x0110, midway=True),
        "failed while processing the request (0110)",
        stored=9,
    ),
    _partly(
        "what-is-protected",
        "one series, as we are not authorised for it (0124); it sends what comes before",
        CannotSend(_of(THIRD), 0x0124, midway=True),
        "does not authorise",
    ),
)

#: A study with two SOP classes.
_PATIENT = make_patient(random.Random(20), "GET-21")
MIXED = (make_study(_PATIENT, "20001", date(2019, 5, 1), (CT, 2), (SR, 3)),)


def _refused_class(name: str, fault: str, status: int | None) -> Scenario:
    return Scenario(
        20,
        f"a-class-not-sent-by-get-{name}",
        f"the archive refuses a SOP class over C-GET{fault}",
        "retrieves what is of other classes at once, and no more of this one; the reason names the class",
        lambda: [RefusedClass(SR.sop_class, status)],
        studies=MIXED,
        rows=(PARTIAL,),
        stored=(2,),
        exit_code=1,
        profile={"retrieve": "get"},
        requests=ArchiveRequests(("",), (1, 1, 2), None),
        messages=("3 instances of 5", "does not send Basic Text SR Storage by C-GET"),
    )


SCENARIOS: tuple[Scenario, ...] = (
    *_CANNOT_SEND,
    _refused_class("counted", ", and counts its instances as failed", None),
    _refused_class("failed", ": a request with one of its instances fails with C000", 0xC000),
    *(
        _status(
            status, "backs off, and sends the same request again", moves=("STUDY STUDY",) * 2, finds=(2, 4, 8)
        )
        for status in (0xA700, 0xC502)
    ),
    *(
        _status(
            status,
            "retrieves by series at once, then by instance",
            moves=("STUDY SERIES SERIES IMAGE:2", "STUDY"),
            finds=(2, 2, 4),
        )
        for status in (0xA702, 0xC000, 0x0110, 0x1234)
    ),
    *(
        Scenario(
            7,
            f"{status:04X}-at-study-level",
            f"C-MOVE at STUDY level always ends with {status:04X}",
            "retrieves at SERIES level instead, at once",
            lambda status=status: [faults.MoveStatus(status, level="STUDY")],  # type: ignore[misc]
            requests=ArchiveRequests(("STUDY SERIES SERIES",) * 2),
        )
        for status in (0xA701, 0xA900, 0x0120, 0x0122, 0xFE00)
    ),
    Scenario(
        7,
        "A801",
        "the archive does not know the destination (A801)",
        "stops at once and shows what to register; rows stay pending, exit code 4",
        lambda: [faults.MoveStatus(0xA801)],
        requests=ArchiveRequests(("STUDY", ""), None, 3),
        **STOPPED,  # type: ignore[arg-type]
    ),
    Scenario(
        7,
        "0124",
        "the archive does not authorise us to retrieve (0124)",
        "stops at once and shows what must be allowed; rows stay pending, exit code 4",
        lambda: [faults.MoveStatus(0x0124)],
        requests=ArchiveRequests(("STUDY", ""), None, 3),
        **STOPPED,  # type: ignore[arg-type]
    ),
    Scenario(
        7,
        "0124-for-one-study",
        "one study is not authorised (0124), others are sent",
        "requests its series, too; then that study fails with the status, and the others go on",
        lambda: [store_faults.Of(STUDIES[1], faults.MoveStatus(0x0124))],
        rows=(COMPLETE, REFUSED),
        stored=(4, 0),
        exit_code=1,
        requests=ArchiveRequests(("STUDY", "STUDY SERIES SERIES")),
    ),
    Scenario(
        7,
        "C000-for-one-study",
        "one study cannot be sent (C000), and it is the first of the job",
        "requests less and less, then with pauses; then the study fails with the status, others go on",
        lambda: [store_faults.Of(STUDIES[0], faults.MoveStatus(0xC000))],
        rows=(REFUSED, COMPLETE),
        stored=(0, 4),
        exit_code=1,
        requests=ArchiveRequests(
            (
                "STUDY SERIES SERIES IMAGE:2 IMAGE:2 IMAGE:1 IMAGE:1 IMAGE:1 STUDY SERIES SERIES "
                "IMAGE:2 IMAGE:2" + " IMAGE:1" * 8,
                "STUDY",
            ),
            (2, 7, 14),
            None,
        ),
    ),
    Scenario(
        7,
        "C000-for-all",
        "nothing is ever sent: every C-MOVE ends with C000 (an archive that does not know us)",
        "stops after three studies, and shows what to register; rows stay pending, exit code 4",
        lambda: [faults.MoveStatus(0xC000)],
        studies=store_faults.MORE,
        rows=(PENDING,) * 4,
        stored=(0,) * 4,
        exit_code=4,
        requests=ArchiveRequests(None, None, 3, at_most=15),
    ),
    Scenario(
        7,
        "B000-none",
        "B000 with every sub-operation failed, once",
        "a failure like any other: retrieves by series at once",
        lambda: [faults.AllFailed(0xB000, times=1)],
        requests=ArchiveRequests(("STUDY SERIES SERIES", "STUDY")),
    ),
    *(
        Scenario(
            7,
            f"B000-some-{name}",
            f"B000: one sub-operation failed, {description}",
            "retrieves what is missing at IMAGE level",
            lambda listed=listed: [faults.SomeFailed(1, listed=listed, times=1)],  # type: ignore[misc]
            requests=ArchiveRequests(("STUDY IMAGE:1", "STUDY")),
        )
        for name, description, listed in (
            ("listed", "and the list of failed UIDs names it", True),
            ("unlisted", "and no list names it", False),
        )
    ),
    Scenario(
        7,
        "one-instance-for-ever",
        "one instance of every answer fails, each time (B000)",
        "retrieves it alone, six times with pauses; then the row is partial, and missing.csv names it",
        lambda: [store_faults.Never(STUDIES[0], 1)],
        rows=(PARTIAL, COMPLETE),
        stored=(3, 4),
        exit_code=1,
        requests=ArchiveRequests(("STUDY" + " IMAGE:1" * 6, "STUDY"), (2, 7, 14), 3),
    ),
    Scenario(
        8,
        "success-all-failed",
        "0000 although all sub-operations failed, once",
        "counters correct the status: retrieves by series at once",
        lambda: [faults.AllFailed(0x0000, times=1)],
        requests=ArchiveRequests(("STUDY SERIES SERIES", "STUDY")),
    ),
    Scenario(
        8,
        "no-counters",
        "responses without counters, which is not zero",
        "compares what is stored with the list, as always",
        lambda: [faults.NoCounters()],
    ),
    Scenario(
        8,
        "half-sent",
        "half of the instances sent, and called a success, once",
        "the list shows what is missing: retrieves the series that did not come",
        lambda: [faults.HalfSent(times=1)],
        requests=ArchiveRequests(("STUDY SERIES", "STUDY")),
    ),
    Scenario(
        8,
        "claimed-and-nothing-sent",
        "0000 with every sub-operation completed, and nothing sent, ever",
        "success is no proof: retrieves smaller parts; after three studies of which nothing came it stops",
        lambda: [faults.NothingSent(claimed=True)],
        studies=store_faults.MORE,
        rows=(*[("failed", "nothing_arrived")] * 2, PENDING, PENDING),
        stored=(0,) * 4,
        exit_code=4,
        requests=ArchiveRequests((*["STUDY SERIES IMAGE:2 IMAGE:1 IMAGE:1"] * 3, ""), None, 3),
    ),
    Scenario(
        9,
        "late",
        "half of the instances come after a final response that claims them all",
        "the receiver outlives the C-MOVE: waits while instances arrive, and retrieves nothing twice",
        lambda: [faults.Late(0.15)],
    ),
    Scenario(
        10,
        "several-associations",
        "every instance comes on an association of its own, without Move Originator",
        "routes by the UIDs in the data",
        lambda: [faults.SeveralAssociations()],
    ),
    Scenario(
        10,
        "unrequested",
        "an instance of a study that was not requested comes along",
        "refuses it (0124) and keeps the others",
        lambda: [faults.Unrequested()],
        cohort=by_accession(STUDIES[:1]),
        rows=(COMPLETE,),
        stored=(4, 0),
        requests=ArchiveRequests(("STUDY", ""), (1, 1, 2), 3),
    ),
    Scenario(
        11,
        "duplicates",
        "every instance comes twice",
        "counts the second, and keeps one",
        lambda: [faults.Duplicates()],
    ),
    Scenario(
        11,
        "other-encoding",
        "every instance comes a second time in another transfer syntax",
        "keeps the first, and counts the second",
        lambda: [store_faults.Reencoded()],
    ),
    Scenario(
        11,
        "other-content",
        "every instance comes a second time with other content",
        "keeps both, reports the conflict, and calls nothing complete",
        lambda: [faults.Duplicates(changed=True)],
        rows=(("unverified", "content_conflict"),) * 2,
        stored=(8, 8),
        unlisted=8,
        exit_code=1,
    ),
    Scenario(
        11,
        "listed-in-two-series",
        "the first instance of a study is listed in both of its series",
        "its identity is the SOP Instance UID: it is one instance",
        lambda: [store_faults.ListedTwice()],
    ),
)
