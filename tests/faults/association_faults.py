"""Items 1 to 6: associations and time."""

from __future__ import annotations

from tests.faults.scenario import COMPLETE, PENDING, STUDIES, ArchiveRequests, Scenario
from tests.scripted import faults
from tests.scripted.faults import PERMANENT
from tests.scripted.wire_faults import AnnouncesDatasets, EndsBehindAnswer

#: Requests after a C-MOVE is lost half-way: a probe, a new association, and only what is missing.
TOPPED_UP = ArchiveRequests(("STUDY IMAGE:1", "STUDY"), associations=5)

SCENARIOS = (
    Scenario(
        1,
        "transient-reject",
        "the association is rejected for now (2/3/2, local limit), six times",
        "probes with C-ECHO at growing intervals, one thread alone, then goes on where it was",
        lambda: [faults.Reject(times=6).after(1)],
        requests=ArchiveRequests(associations=None),
        messages=("not available", "answers again"),
    ),
    Scenario(
        1,
        "transient-reject-at-the-start",
        "the very first association is rejected for now, twice",
        "starts all the same: an archive that is busy is there; it probes until it is let in",
        lambda: [faults.Reject(times=2)],
        requests=ArchiveRequests(associations=5),
        messages=("not available", "answers again"),
    ),
    Scenario(
        1,
        "one-association",
        "the archive accepts one association at a time, and rejects every other for now",
        "releases its idle association for the other, keeps to one from then on, and fetches everything",
        lambda: [faults.OneAssociation()],
        requests=ArchiveRequests(associations=None),
        messages=("no more than one association at once",),
    ),
    *(
        Scenario(
            1,
            f"one-association-{name}",
            f"the archive accepts one association at a time, and rejects every other with {what}",
            "takes that for a limit, as an association is open: keeps to one, and fetches everything",
            lambda answer=answer: [faults.OneAssociation(*answer)],  # type: ignore[misc]
            requests=ArchiveRequests(associations=None),
            messages=("no more than one association at once",),
            options=options,
        )
        for name, what, answer, options in (
            ("no-reason", 'result 1, "no reason given" (1/2/1)', (1, 2, 1), {}),
            ("permanent", "result 1, local limit exceeded (1/3/2)", (1, 3, 2), {}),
            ("parallel", "2/3/1, and the job has three threads for retrievals", (2, 3, 1), {"parallel": 3}),
        )
    ),
    Scenario(
        1,
        "permanent-reject",
        "the association is rejected for good (result 1) in mid-job",
        "stops at once with the archive's reason; what was not fetched stays pending, exit code 4",
        lambda: [faults.Reject(PERMANENT).after(2)],
        rows=(PENDING, PENDING),
        stored=(0, 0),
        exit_code=4,
        requests=ArchiveRequests(("", ""), None, 3),
    ),
    Scenario(
        2,
        "abort-mid-move",
        "the association is aborted in the middle of a C-MOVE",
        "compares, and retrieves only the missing instance, at IMAGE level",
        lambda: [faults.Lose(3, times=1)],
        requests=TOPPED_UP,
    ),
    Scenario(
        2,
        "abort-between-series",
        "the association is aborted when a whole series has come",
        "compares, and retrieves the missing series, at SERIES level",
        lambda: [faults.Lose(2, times=1)],
        requests=ArchiveRequests(("STUDY SERIES", "STUDY"), associations=5),
    ),
    Scenario(
        2,
        "connection-cut-mid-move",
        "the connection is cut in the middle of a C-MOVE",
        "compares, and retrieves only the missing instance, at IMAGE level",
        lambda: [faults.Lose(3, cut=True, times=1)],
        requests=TOPPED_UP,
    ),
    *(
        Scenario(
            2,
            f"{name}-behind-every-answer",
            f"the association is {what} right behind every final response",
            "the answer counts; the next request goes over a new association",
            lambda release=release: [EndsBehindAnswer(release=release)],  # type: ignore[misc]
            # A request may be on its way while the association ends: it is repeated.
            requests=ArchiveRequests(finds=None, associations=None),
        )
        for name, what, release in (("abort", "aborted", False), ("release", "released", True))
    ),
    Scenario(
        2,
        "datasets-announced",
        "every response announces a dataset, also where none follows",
        "the archive's next message counts, and a final response is final: no time is lost",
        lambda: [AnnouncesDatasets()],
    ),
    Scenario(
        2,
        "abort-every-retrieval",
        "every C-MOVE is aborted before the first instance, though the archive answers C-ECHO",
        "requests less and less, with pauses; gives each study up after six fruitless tries in a row",
        lambda: [faults.Lose(0)],
        rows=(("failed", "gave_up_waiting"),) * 2,
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("STUDY STUDY SERIES IMAGE:2 IMAGE:1 IMAGE:1",) * 2, (2, 12, 24), None),
    ),
    Scenario(
        3,
        "no-pending-responses",
        "no pending response is ever sent",
        "arriving instances are signs of life, too",
        lambda: [faults.NoPending()],
    ),
    *(
        Scenario(
            3,
            f"silence-{name}",
            f"nothing arrives for a while {name} the stores",
            "waits: the time-out (silence) is longer",
            lambda sent=sent: [faults.Silence(sent, 0.6, times=1)],  # type: ignore[misc]
        )
        for name, sent in (("before", 0), ("between", 2), ("after", 4))
    ),
    Scenario(
        3,
        "silence-for-ever",
        "the archive falls silent between two stores, and stays so",
        "aborts after the time-out, and retrieves only the missing instances",
        lambda: [faults.Silence(3, 600.0, times=1)],
        profile={"silence": 0.5},
        requests=TOPPED_UP,
    ),
    Scenario(
        4,
        "endless-pendings",
        "pending responses for ever, without one instance",
        "they extend the time-out, but not without limit: without progress it aborts, and tries again",
        lambda: [faults.EndlessPending(times=1)],
        profile={"silence": 0.3},
        requests=ArchiveRequests(("STUDY STUDY", "STUDY"), (2, 3, 6), None),
    ),
    Scenario(
        4,
        "silent-find",
        "a C-FIND is never answered",
        "gives the query up after query-timeout, and repeats it over a new association",
        lambda: [faults.SilentFind(times=1)],
        profile={"query-timeout": 1.0},
        requests=ArchiveRequests(finds=(3, 2, 4), associations=5),
    ),
    Scenario(
        4,
        "silent-find-for-ever",
        "no C-FIND is ever answered, though the archive answers C-ECHO",
        "gives up on a row after six tries: the query failed, which is not 'not found'",
        lambda: [faults.SilentFind()],
        profile={"query-timeout": 0.2},
        rows=(("failed", "query_failed"),) * 2,
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), (12, 0, 0), None),
    ),
    Scenario(
        5,
        "offline-then-recalled",
        "the studies are OFFLINE; C-MOVE succeeds with 0 sub-operations until they are recalled",
        "retrieves once, waits for the recall, and retrieves once more",
        lambda: [faults.Offline(times=2)],
        requests=ArchiveRequests(("STUDY STUDY",) * 2, (2, 4, 8), None),
        messages=("the study is offline, and the archive is recalling it",),
    ),
    Scenario(
        5,
        "offline-for-ever",
        "a study is OFFLINE and is never recalled",
        "tries at growing intervals until nearline-patience is over; no other study waits for it",
        lambda: [faults.Offline(study_uid=STUDIES[0].study_uid)],
        profile={"nearline-patience": 0.5},
        rows=(("failed", "nothing_arrived"), COMPLETE),
        stored=(0, 4),
        exit_code=1,
        requests=ArchiveRequests(("STUDY STUDY STUDY", "STUDY"), (2, 4, 8), None),
    ),
    Scenario(
        5,
        "nothing-sent-without-a-reason",
        "C-MOVE succeeds with 0 sub-operations, and nothing shows that the studies are offline",
        "retrieves by series, then by instance, lists again, and gives up: a few requests, not a flood",
        lambda: [faults.NothingSent()],
        rows=(("failed", "nothing_arrived"),) * 2,
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(
            ("STUDY SERIES SERIES IMAGE:2 IMAGE:2 IMAGE:1 IMAGE:1 IMAGE:1 IMAGE:1",) * 2, (2, 4, 8), 3
        ),
    ),
)
