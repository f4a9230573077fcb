"""Two jobs of a host and one archive: it answers both or none, and is busy for both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.config.archive_profile import ArchiveProfile, Limits
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.errors import OperatorActionRequired, Unreachable
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling import archive_state, host_state
from dicom_quarry.scheduling import circuit_breaker as breakers
from dicom_quarry.scheduling.archive_state import ArchiveState
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.host_state import HostState
from dicom_quarry.scheduling.shared_state import Clock, ProcessState, SharedState
from dicom_quarry.scheduling.site_throttle import build_throttle
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown
from tests.scheduling.test_circuit_breaker import DOWN, Probed, Question

BUSY = RetrieveResult(Verdict.RETRY, 0xA700)


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.clock = Clock(lambda: self.seconds, lambda: self.seconds)

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "backoff", lambda *_, **__: 0.0)


class Job:
    """A job of the host: its throttle, breaker and archive client."""

    def __init__(self, state: SharedState, archive: Probed, parallel: int = 4) -> None:
        self.board, self.stop, self.archive = StatusBoard(), Shutdown(), archive
        self.throttle = ArchiveThrottle(
            Limits(), {}, parallel=parallel, shared_state=state, shutdown=self.stop, status_board=self.board
        )
        self.breaker = CircuitBreaker(archive, self.stop, self.board, self.throttle)

    @property
    def limit(self) -> int:
        self.throttle._adopt_rejections()
        return self.throttle.concurrency.limit(self.throttle.clock.monotonic())

    def is_refused(self) -> None:
        with self.throttle.acquire_retrieval() as permit:
            permit.record_result(BUSY)

    @property
    def messages(self) -> list[str]:
        return list(self.board.take_messages())


def test_what_one_job_cannot_reach_no_other_asks(tmp_path: Path, time: Time) -> None:
    first, second = (Job(HostState(tmp_path, clock=time.clock), Probed()) for _ in range(2))
    assert second.breaker.call(Question()) == "answer"
    first.breaker.trip(DOWN)
    time.seconds += archive_state._MAX_AGE + 1
    assert second.breaker.call(Question()) == "answer"
    assert second.archive.probes == 1, "it has probed, not asked"
    assert [text.partition(" after")[0] for text in second.messages] == [
        "the archive is not available to another job of this computer",
        "the archive answers again",
    ]
    assert first.breaker.call(Question()) == "answer"
    assert first.archive.probes == 0, "the answer to one job is the answer to all"
    assert "answers again" in first.messages[-1]


def test_one_job_probes_at_a_time(tmp_path: Path) -> None:
    archive, jobs = Probed(*[DOWN] * 6), 3
    breakers = [Job(HostState(tmp_path), archive).breaker for _ in range(jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        calls = [pool.submit(one.call, Question(DOWN)) for one in breakers]
        assert [one.result(60) for one in calls] == ["answer"] * jobs
    assert archive.most_at_once == 1


def test_a_probe_that_does_not_end_is_another_jobs_after_a_while(tmp_path: Path, time: Time) -> None:
    state = ArchiveState(HostState(tmp_path, clock=time.clock), "archive")
    other = ArchiveState(HostState(tmp_path, clock=time.clock), "archive")
    state.mark_unavailable(0.0, 0.0)
    assert state.claim_probe()
    assert not other.claim_probe(), "the first job probes; it may have been killed"
    time.seconds += archive_state._PROBE_SECONDS
    assert other.claim_probe()
    other.mark_available()
    state.refresh()
    assert state.is_available


def test_the_pause_that_a_busy_archive_wants_is_for_all(tmp_path: Path, time: Time) -> None:
    state, other = (ArchiveState(HostState(tmp_path, clock=time.clock), "archive") for _ in range(2))
    state.mark_unavailable(1.0, 90.0)
    other.refresh()
    assert other.seconds_to_probe == pytest.approx(90.0)
    assert not other.claim_probe()


def test_a_record_from_before_a_restart_holds_nobody_up(tmp_path: Path, time: Time) -> None:
    ArchiveState(HostState(tmp_path, clock=time.clock), "archive").mark_unavailable(0.0, 1e9)
    time.seconds = 5.0
    assert ArchiveState(HostState(tmp_path, clock=time.clock), "archive").is_available


def test_a_job_that_finds_the_archive_well_says_so_to_all(tmp_path: Path, time: Time) -> None:
    first, second = (Job(HostState(tmp_path, clock=time.clock), Probed()) for _ in range(2))
    first.breaker.trip(DOWN)
    time.seconds += 2
    second.breaker.close()
    assert second.breaker.call(Question()) == first.breaker.call(Question()) == "answer"
    assert first.archive.probes == second.archive.probes == 0


def test_give_up_after_holds_for_those_who_do_not_probe(tmp_path: Path, time: Time) -> None:
    job = Job(HostState(tmp_path, clock=time.clock), Probed())
    job.breaker._give_up_after = 0.0
    other = ArchiveState(HostState(tmp_path, clock=time.clock), "archive")
    other.mark_unavailable(0.0, 0.0)
    other.on_probe_failed(1, 60.0, 0.0)
    time.seconds += 2
    with pytest.raises(OperatorActionRequired, match="no job of this computer has had an answer"):
        job.breaker.call(Question())


def test_a_healthy_archive_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    job = Job(HostState(tmp_path), Probed())
    for _ in range(3):
        assert job.breaker.call(Question()) == "answer"
        with job.throttle.acquire_retrieval() as permit:
            permit.record_result(RetrieveResult(Verdict.SUCCESS, 0))
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_read_once_a_second(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    state = ProcessState(time.clock)
    job = Job(state, Probed())
    reads: list[str] = []

    def read(name: str) -> tuple[float, ...]:
        reads.append(name)
        return ()

    monkeypatch.setattr(state, "read", read)
    for _ in range(50):
        job.breaker.call(Question())
        with job.throttle.acquire_retrieval():
            pass
    assert reads == []
    time.seconds += 1
    for _ in range(50):
        job.breaker.call(Question())
    assert reads == ["archive"]


def test_an_archive_too_busy_for_one_job_gets_less_of_every_job(tmp_path: Path, time: Time) -> None:
    first, second = (Job(HostState(tmp_path, clock=time.clock), Probed()) for _ in range(2))
    assert (first.limit, second.limit) == (4, 4)
    first.is_refused()
    time.seconds += 2
    assert (first.limit, second.limit) == (2, 2)
    assert second.messages == ["the archive is busy with another job: at most 2 at once for a while"]
    late = Job(HostState(tmp_path, clock=time.clock), Probed())
    assert late.limit == 4, "what was before a job began is no reason"


def test_refusals_of_two_jobs_at_the_same_moment_count_once(tmp_path: Path, time: Time) -> None:
    first, second = (Job(HostState(tmp_path, clock=time.clock), Probed()) for _ in range(2))
    with second.throttle.acquire_retrieval() as permit:
        time.seconds += 0.1
        first.is_refused()
        time.seconds += 0.1
        permit.record_result(BUSY)
    time.seconds += 2
    assert (first.limit, second.limit) == (2, 2)


def test_a_file_that_cannot_be_used_stops_no_job(tmp_path: Path, time: Time) -> None:
    (tmp_path / "archive").mkdir()
    job = Job(HostState(tmp_path, clock=time.clock), Probed())
    assert job.breaker.call(Question(Unreachable("nobody listens"))) == "answer"
    assert job.archive.probes == 1
    job.is_refused()
    assert job.limit == 2


def test_jobs_without_a_usable_folder_have_a_state_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(host_state, "FALLBACK_FOLDER", file)
    profile = ArchiveProfile(name="main", address="PACS@pacs:104")
    throttle = build_throttle(profile, 1, SitePolicy(shared=file), Shutdown(), StatusBoard())
    assert isinstance(throttle._shared_state, ProcessState)


def test_profiles_of_one_archive_have_one_record(tmp_path: Path) -> None:
    profiles = [
        ArchiveProfile(name="main", address="PACS@pacs:104"),
        ArchiveProfile(name="other", address="PACS@pacs:104", parallel=1),
        ArchiveProfile(name="main", address="OTHER@pacs:104"),
    ]
    for one in profiles:
        throttle = build_throttle(one, 1, SitePolicy(shared=tmp_path), Shutdown(), StatusBoard())
        throttle.archive_state.mark_unavailable(0.0, 0.0)
    assert len(list(tmp_path.iterdir())) == 2


_TRIPPED = """
import pathlib, sys, time
from dicom_quarry.scheduling.archive_state import ArchiveState
from dicom_quarry.scheduling.host_state import HostState
state = ArchiveState(HostState(pathlib.Path(sys.argv[1])), "archive")
state.mark_unavailable(0.0, 0.0)
print("tripped", flush=True)
time.sleep(600)
"""


def test_a_killed_job_holds_nothing(tmp_path: Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", _TRIPPED, tmp_path], stdout=subprocess.PIPE)
    assert job.stdout is not None
    assert job.stdout.readline() == b"tripped\n"
    os.kill(job.pid, signal.SIGKILL)
    job.communicate(timeout=60)
    other = Job(HostState(tmp_path), Probed())
    assert other.breaker.call(Question()) == "answer"
    assert other.archive.probes == 1
