"""A throttle over simulated weeks, by a clock that moves only when somebody waits; and when it is refused."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.host_state import HostState
from dicom_quarry.scheduling.rate_limit import SUCCESSES_BEFORE_INCREASE
from dicom_quarry.scheduling.shared_state import Clock, ProcessState, Sleep
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown, Stopped
from tests.scheduling.throttles import Simulated

NEW_YORK = ZoneInfo("America/New_York")
SUCCESS = RetrieveResult(Verdict.SUCCESS, 0x0000)
NIGHTS = Limits(window="19:00-07:00", time_zone="America/New_York")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@dataclass
class Seen:
    """What an archive sees: when queries and moves began, when moves ended, what they brought."""

    queries: list[float] = field(default_factory=list)
    moves: list[tuple[float, float]] = field(default_factory=list)
    size: int = 0


def throttle_of(
    own: Limits, stop: Shutdown, clock: Simulated, *, site: Mapping[str, Limits] | None = None, **more: object
) -> tuple[ArchiveThrottle, StatusBoard]:
    board = StatusBoard()
    folder: Path | None = more.get("shared")  # type: ignore[assignment]
    at_once = int(str(more.get("at_once", 1)))
    throttle = ArchiveThrottle(
        own,
        site or {},
        parallel=at_once,
        shared_state=HostState(folder, clock=clock.clock) if folder else ProcessState(clock.clock),
        shutdown=stop,
        status_board=board,
    )
    return throttle, board


def live(throttle: ArchiveThrottle, clock: Simulated, until: datetime, *, size: int = 40_000_000) -> Seen:
    """Find and fetch studies of 3 queries and two minutes each, until that day."""
    seen = Seen()
    while clock.seconds < until.timestamp():
        throttle.wait_until_open()
        for _ in range(3):
            throttle.acquire_query()
            seen.queries.append(clock.seconds)
        with throttle.acquire_retrieval():
            began = clock.seconds
            clock.seconds += 120
            for _ in range(4):
                throttle.throttle_bytes(size // 4)
            seen.moves.append((began, clock.seconds))
            seen.size += size
    return seen


def is_night(at: float) -> bool:
    return not 7 <= datetime.fromtimestamp(at, NEW_YORK).hour < 19


@pytest.mark.parametrize("changed", ["2026-03-08", "2026-11-01"])
def test_over_weeks_nothing_begins_outside_the_window(changed: str) -> None:
    start = local(changed) - timedelta(days=10)
    clock = Simulated(start)
    throttle, board = throttle_of(NIGHTS, clock, clock)
    seen = live(throttle, clock, local(changed) + timedelta(days=11))
    assert all(is_night(began) for began, _ in seen.moves)
    assert all(is_night(at) for at in seen.queries)
    assert len([said for said in board.take_messages() if said.startswith("outside the window")]) == 21
    nights: dict[str, int] = {}
    for began, _ in seen.moves:
        night = (datetime.fromtimestamp(began, NEW_YORK).replace(tzinfo=None) - timedelta(hours=7)).date()
        nights[str(night)] = nights.get(str(night), 0) + 1
    before = str(local(changed).date() - timedelta(days=1))
    usual, hour = 12 * 30, 30
    assert nights[before] == usual + (hour if "11" in changed[:7] else -hour), "11 hours, or 13"
    others = [count for night, count in sorted(nights.items())[1:-1] if night != before]
    assert set(others) == {usual}, "the window is used, too"


def test_over_weeks_the_rates_hold() -> None:
    start = local("2026-03-01")
    clock = Simulated(start)
    own = Limits(
        window="Mon-Fri 19:00-07:00, Sat-Sun 00:00-24:00",
        time_zone="America/New_York",
        queries_per_second=0.1,
        studies_per_hour=12,
        megabytes_per_second=0.2,
    )
    throttle, _ = throttle_of(own, clock, clock)
    seen = live(throttle, clock, start + timedelta(days=14))
    begins = [began for began, _ in seen.moves]
    assert min(after - before for before, after in itertools.pairwise(begins)) >= 299.99
    assert min(after - before for before, after in itertools.pairwise(seen.queries)) >= 9.99
    for began, ended in seen.moves:
        assert ended - began >= 199, "40 MB, at 0.2 MB a second, take 200 s and not 120"
    assert len(begins) > 12 * 24 * 4, "the rate is used, too"


def test_the_tighter_of_two_holds(tmp_path: Path) -> None:
    start = local("2026-03-01")
    clock = Simulated(start)
    site = {"all": NIGHTS, "pacs.104": Limits(window="22:00-09:00", time_zone="UTC", studies_per_hour=6)}
    own = Limits(studies_per_hour=60)
    throttle, _ = throttle_of(own, clock, clock, site=site, shared=tmp_path)
    seen = live(throttle, clock, start + timedelta(days=14))
    begins = [began for began, _ in seen.moves]
    assert min(after - before for before, after in itertools.pairwise(begins)) >= 599.99
    for began in begins:
        assert is_night(began)
        assert not 9 <= datetime.fromtimestamp(began, UTC).hour < 22
    assert len(begins) > 14 * 9 * 5


def test_the_rate_of_the_site_is_of_two_jobs_together(tmp_path: Path) -> None:
    clock = Simulated(local("2026-03-01"))
    site = {"all": Limits(studies_per_hour=60, queries_per_second=2)}
    jobs = [throttle_of(Limits(), clock, clock, site=site, shared=tmp_path)[0] for _ in range(2)]
    begins, queries = list[float](), list[float]()
    for _ in range(50):
        for job in jobs:
            job.acquire_query()
            queries.append(clock.seconds)
            with job.acquire_retrieval():
                begins.append(clock.seconds)
    for times, apart in ((begins, 60.0), (queries, 0.5)):
        assert min(after - before for before, after in itertools.pairwise(times)) >= apart - 1e-3


def test_what_runs_is_finished_unless_a_time_is_set() -> None:
    clock = Simulated(local("2026-03-03 06:59"))
    throttle, _ = throttle_of(NIGHTS, clock, clock)
    with throttle.acquire_retrieval() as visit:
        clock.seconds += 6 * 3600
        assert not visit.ended_by


def test_after_the_time_that_is_set_a_move_is_over() -> None:
    clock = Simulated(local("2026-03-03 06:50"))
    site = {"all": Limits(after_window="2h")}
    own = NIGHTS.model_copy(update={"after_window": "30m"})
    throttle, _ = throttle_of(own, clock, clock, site=site)
    with throttle.acquire_retrieval() as visit:
        for minutes, over in [(0, False), (39, False), (1, True), (60, True), (11 * 60, False)]:
            clock.seconds += minutes * 60
            assert ("window has closed" in visit.ended_by) == over, "from 07:30 until 19:00"


def test_a_retrieval_is_over_when_its_slot_may_be_given_away() -> None:
    class Slot:
        is_lost = False

    class Leases(ProcessState):
        @contextmanager
        def slot(self, pool: str, limit: int, sleep: Sleep) -> Iterator[Slot]:
            yield slot

    slot = Slot()
    throttle = ArchiveThrottle(
        Limits(),
        {"all": Limits(parallel=1)},
        parallel=1,
        shared_state=Leases(),
        shutdown=Shutdown(),
        status_board=StatusBoard(),
    )
    with throttle.acquire_retrieval() as permit:
        assert not permit.ended_by
        slot.is_lost = True
        assert "the database with the limits does not answer" in permit.ended_by


def test_it_says_once_until_when_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Simulated(local("2026-11-20 07:00"))
    waits = set[str]()
    throttle, board = throttle_of(
        Limits(window="Mon-Thu 19:00-07:00", time_zone="America/New_York"), clock, clock
    )
    wait = clock.wait_unless_stopping

    def watched(seconds: float) -> None:
        waits.add(board.waiting_for)
        wait(seconds)

    monkeypatch.setattr(clock, "wait_unless_stopping", watched)
    throttle.wait_until_open()
    assert clock.seconds == local("2026-11-23 19:00").timestamp()
    assert list(board.take_messages()) == [
        "outside the window: waiting until Mon 19:00 (America/New_York)",
        "inside the window again",
    ]
    assert waits == {"the window, until Mon 19:00 (America/New_York)"}
    assert board.waiting_for == ""
    throttle.wait_until_open()
    assert list(board.take_messages()) == []


def test_a_stop_ends_the_wait() -> None:
    clock = Simulated(local("2026-11-20 12:00"))
    throttle, board = throttle_of(NIGHTS, clock, clock)
    clock.request()
    with pytest.raises(Stopped):
        throttle.wait_until_open()
    with pytest.raises(Stopped), throttle.acquire_retrieval():
        pass
    assert board.waiting_for == ""


def test_a_stop_lets_what_is_in_flight_ask_its_last_questions() -> None:
    clock = Simulated(local("2026-11-20 20:00"))
    throttle, _ = throttle_of(Limits(queries_per_second=1), clock, clock)
    throttle.acquire_query()
    clock.request()
    throttle.acquire_query()
    assert clock.seconds == local("2026-11-20 20:00:01").timestamp()
    clock.request()
    with pytest.raises(Stopped):
        throttle.acquire_query()


def test_bytes_that_come_after_a_stop_are_nobodys_error() -> None:
    clock = Simulated(local("2026-11-20 20:00"))
    throttle, _ = throttle_of(Limits(megabytes_per_second=1), clock, clock)
    clock.request()
    throttle.throttle_bytes(2_000_000)
    assert clock.seconds == local("2026-11-20 20:00:02").timestamp()
    clock.request()
    throttle.throttle_bytes(2_000_000)


def test_of_many_that_wait_for_the_window_one_says_so() -> None:
    now = [local("2026-11-20 12:00").timestamp()]
    wait, waiting = threading.Event(), threading.Semaphore(0)

    class Held(Shutdown):
        def wait_unless_stopping(self, seconds: float) -> None:
            waiting.release()
            assert wait.wait(60)

    stop, board = Held(), StatusBoard()
    clock = Clock(now=lambda: now[0])
    throttle = ArchiveThrottle(
        NIGHTS, {}, parallel=1, shared_state=ProcessState(clock), shutdown=stop, status_board=board
    )
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(throttle.wait_until_open) for _ in range(3)]
        for _ in waits:
            assert waiting.acquire(timeout=60)
        assert board.waiting_for.startswith("the window")
        now[0] = local("2026-11-20 19:00").timestamp()
        wait.set()
        for one in waits:
            one.result(60)
    assert len(list(board.take_messages())) == 2


def test_a_move_waits_on_when_the_window_closes_before_it_may_begin() -> None:
    clock = Simulated(local("2026-03-03 06:30"))
    throttle, _ = throttle_of(NIGHTS.model_copy(update={"studies_per_hour": 1.0}), clock, clock)
    with throttle.acquire_retrieval():
        pass
    with throttle.acquire_retrieval():
        assert clock.seconds >= local("2026-03-03 19:00").timestamp()


def test_more_of_a_study_is_not_another_study() -> None:
    clock = Simulated(local("2026-03-03 20:00"))
    throttle, _ = throttle_of(Limits(studies_per_hour=1), clock, clock)
    with throttle.acquire_retrieval():
        pass
    with throttle.acquire_retrieval(is_repeat=True):
        assert clock.seconds == local("2026-03-03 20:00").timestamp()


def test_windows_that_never_meet_are_a_mistake() -> None:
    clock = Simulated(local("2026-03-03 20:00"))
    with pytest.raises(ConfigError, match="no hour in common"):
        throttle_of(Limits(window="12:00-13:00"), clock, clock, site={"all": Limits(window="13:00-14:00")})


def test_the_ceiling_is_the_lowest_that_anyone_set() -> None:
    clock = Simulated(local("2026-03-03 20:00"))
    site = {"all": Limits(parallel=5), "pacs.104": Limits(parallel=3)}
    assert throttle_of(Limits(parallel=4), clock, clock, site=site, at_once=8)[0].max_parallel == 3
    assert throttle_of(Limits(parallel=4), clock, clock, at_once=8)[0].max_parallel == 4
    assert throttle_of(Limits(parallel=4), clock, clock, at_once=2)[0].max_parallel == 2


# -- refused


@pytest.fixture
def busy() -> tuple[ArchiveThrottle, StatusBoard, Simulated]:
    clock = Simulated(local("2026-03-03 20:00"))
    throttle, board = throttle_of(Limits(), clock, clock, at_once=4)
    return throttle, board, clock


class Full(Exception):
    """One more had to wait."""


def at_once(throttle: ArchiveThrottle, clock: Simulated, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many moves may begin before one has to wait."""

    def wait(seconds: float) -> None:
        raise Full

    def enter(depth: int) -> int:
        try:
            with throttle.acquire_retrieval():
                return enter(depth + 1)
        except Full:
            return depth

    with monkeypatch.context() as patched:
        patched.setattr(clock, "wait_unless_stopping", wait)
        return enter(0)


@pytest.mark.parametrize("status", [0xA700, 0xA701, 0xA702])
def test_an_archive_out_of_resources_is_asked_for_half_at_once(
    busy: tuple[ArchiveThrottle, StatusBoard, Simulated], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle, board, clock = busy
    assert at_once(throttle, clock, monkeypatch) == 4
    with throttle.acquire_retrieval() as visit:
        clock.seconds += 1
        visit.record_result(RetrieveResult(Verdict.RETRY, status))
    assert at_once(throttle, clock, monkeypatch) == 2
    why = "the archive could not send (A702)" if status == 0xA702 else "the archive is busy"
    assert list(board.take_messages()) == [f"{why}: at most 2 at once for a while"]
    for allowed in (2, 3, 4, 4):
        assert at_once(throttle, clock, monkeypatch) == allowed
        for _ in range(SUCCESSES_BEFORE_INCREASE):
            with throttle.acquire_retrieval() as visit:
                assert visit.record_result(SUCCESS) is SUCCESS


def test_a_lost_move_is_a_refusal_too_as_some_archives_die_of_several(
    busy: tuple[ArchiveThrottle, StatusBoard, Simulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle, _, clock = busy
    with throttle.acquire_retrieval() as visit:
        visit.record_result(RetrieveResult(Verdict.LOST))
    assert at_once(throttle, clock, monkeypatch) == 2


@pytest.mark.parametrize(
    "answer", [SUCCESS, RetrieveResult(Verdict.RETRY, 0xC000), RetrieveResult(Verdict.CANCELLED)]
)
def test_other_answers_do_not_slow_it_down(
    busy: tuple[ArchiveThrottle, StatusBoard, Simulated],
    answer: RetrieveResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    throttle, _, clock = busy
    with throttle.acquire_retrieval() as visit:
        visit.record_result(answer)
    assert at_once(throttle, clock, monkeypatch) == 4


def test_a_slot_is_given_back_when_a_move_fails(
    busy: tuple[ArchiveThrottle, StatusBoard, Simulated], monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle, _, clock = busy
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), throttle.acquire_retrieval():
            raise ZeroDivisionError
    assert at_once(throttle, clock, monkeypatch) == 4


def test_who_waits_for_one_archive_keeps_nobody_from_another(tmp_path: Path) -> None:
    class Waits(Shutdown):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = threading.Event()

        def wait_unless_stopping(self, seconds: float) -> None:
            self.waiting.set()
            super().wait_unless_stopping(seconds)

    folder = HostState(tmp_path)
    everything, busy = Limits(parallel=2), {"busy.104": Limits(parallel=1)}

    def job(site: Mapping[str, Limits]) -> tuple[ArchiveThrottle, Waits]:
        stop = Waits()
        site = {"all": everything, **site}
        return ArchiveThrottle(
            Limits(), site, parallel=1, shared_state=folder, shutdown=stop, status_board=StatusBoard()
        ), stop

    (first, _), (second, queueing), (third, refused) = job(busy), job(busy), job({})

    def queue() -> None:
        with suppress(Stopped), second.acquire_retrieval():
            pass

    thread = threading.Thread(target=queue)
    with first.acquire_retrieval():
        thread.start()
        assert queueing.waiting.wait(60)
        refused.request()  # so that it fails, rather than waits
        with third.acquire_retrieval():
            pass
        queueing.request()
        thread.join(60)
