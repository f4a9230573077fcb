"""The work on one task, against an archive that says and sends what a test tells it to."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pytest

from dicom_quarry.archive.base import (
    MonitorAction,
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
    Verdict,
)
from dicom_quarry.config.archive_profile import ArchiveProfile, Limits
from dicom_quarry.errors import ConnectionLost, InstanceRefused, QueryFailed
from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.retrieval_round import RetrievalRound, RoundResult
from dicom_quarry.extraction.retry_policy import Finish, Step, next_step
from dicom_quarry.extraction.study_task import StudyTask
from dicom_quarry.extraction.task_snapshot import TaskSnapshot
from dicom_quarry.extraction.worker import Worker
from dicom_quarry.jobs.audit_log import AuditFile
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.database import Work
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.ledger import Ledger, TaskResult
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.views import StudyView
from dicom_quarry.model import (
    InstanceInfo,
    InstanceRef,
    Level,
    Listing,
    OutcomeStatus,
    Receipt,
    SeriesInfo,
    Sink,
    Study,
    Task,
    Transport,
)
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.scheduling import circuit_breaker as gates
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.scheduling.job_room import JobRoom
from dicom_quarry.scheduling.shared_state import ProcessState
from dicom_quarry.scheduling.throttle import ArchiveThrottle, RetrievalPermit
from dicom_quarry.scheduling.transport_selection import TransportSelector
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS
from dicom_quarry.system.shutdown import Shutdown, Stopped
from tests.extraction.contexts import query_context
from tests.ledger.helpers import LITTLE, begin, derive, ref, request, resolve, study
from tests.scheduling.throttles import unlimited

ALL = tuple(ref("1.2.1", number) for number in range(4))
LISTED = Listing(ALL, ("1.2.1.1",))
SUCCESS = RetrieveResult(Verdict.SUCCESS, 0x0000)
CANCELLED = RetrieveResult(Verdict.CANCELLED, 0xFE00)
BUSY = RetrieveResult(Verdict.RETRY, 0xA700, comment="busy")

Reply = Callable[["Bench", RetrieveRequest, RetrieveMonitor], RetrieveResult]


class Bench:
    """An archive, a disk and a ledger with one task; ``replies`` are given one by one, the last again."""

    name = "main"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger(path / "ledger.db")
        begin(self.ledger, [request(1, "A")])
        resolve(self.ledger, request(1, "A"), study(1))
        self.listings: list[Listing | Exception] = [LISTED]
        self.replies: list[Reply] = []
        self.asked: list[RetrieveRequest] = []
        self.on_disk: dict[str, list[Receipt]] = {}
        self.synced: list[PurePosixPath] = []
        self.disk_fails = 0
        self.completed: list[int] = []
        self.stop, self.board = Shutdown(), StatusBoard()
        self.guest: ArchiveThrottle = unlimited(self.stop, self.board)
        self.deliveries = InboundStudies(self.ledger, lambda _task: {})
        self.audit = AuditFile(path / "audit.csv")
        self.ending = ThreadPoolExecutor(1)

    # -- the archive

    def probe(self) -> None:
        pass

    def stop_requesting_counts(self) -> None:
        raise NotImplementedError

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        raise NotImplementedError

    def count_studies(self, patient_id: str) -> int | None:
        raise NotImplementedError

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        raise NotImplementedError

    def list_instances(self, task: Task) -> Listing:
        told = self.listings[0]
        self.listings = self.listings[1:] or self.listings
        if isinstance(told, Exception):
            raise told
        return told

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        self.asked.append(request)
        reply = self.replies[0]
        self.replies = self.replies[1:] or self.replies
        return reply(self, request, monitor)

    def release_thread(self) -> None:
        pass

    def release_idle(self) -> None:
        pass

    def close(self) -> None:
        pass

    # -- the disk

    def begin(self, arrival: InstanceInfo) -> None:
        raise NotImplementedError

    def read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        yield from self.on_disk.get(str(directory), ())

    def relocate(self, receipt: Receipt, subdirectory: str) -> Receipt:
        raise NotImplementedError

    def list_files(self, directory: PurePosixPath) -> list[PurePosixPath]:
        raise NotImplementedError

    def find_unsynced(
        self, directory: PurePosixPath, study_uid: str, synced: Container[PurePosixPath]
    ) -> Iterator[PurePosixPath]:
        raise NotImplementedError

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        gone = set(paths)
        for receipts in self.on_disk.values():
            receipts[:] = [one for one in receipts if one.path not in gone]

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        self.synced.extend(paths)
        if self.disk_fails:
            self.disk_fails -= 1
            raise InstanceRefused("the disk failed: Input/output error", status=0x0110)

    # -- the job

    def arrive(self, *refs: InstanceRef) -> None:
        for one in refs:
            path = PurePosixPath("4711", f"{one.sop_uid}.dcm")
            receipt = Receipt(one, LITTLE, path, 100, bytes(32), patient_id="4711", accession="A1")
            stored = self.on_disk.setdefault("4711", [])
            if receipt not in stored:
                stored.append(receipt)
            if not self.deliveries.record(receipt):
                self.deliveries.record_late_arrival(receipt)

    def work(self) -> StudyTask:
        profile = ArchiveProfile(name="main", address="PACS@127.0.0.1:104", silence=60, settle=0.001)
        gate = CircuitBreaker(self, self.stop, self.board, self.guest)
        roads = TransportSelector((Transport.MOVE,), "QUARRY:11112", self.board.report, has_delivered=True)
        tools = JobContext(
            queries=query_context(self.path, self.stop, self.board, self.guest),
            folder=LocalPlace(self.path, self.path),
            sink=InboundSink(self, self.deliveries),  # type: ignore[arg-type]
            instance_files=self,
            path_of=derive,
            inbound=self.deliveries,
            ledger=self.ledger,
            disk_space=DiskSpaceMonitor(self.path, 0, self.stop, self.board),
            room=JobRoom(None, int, self.stop, self.board),
            audit_log=self.audit,
            on_task_complete=self.completed.append,
        )
        task = self.ledger.task_of("1.2.1")
        assert task is not None
        clients = {"main": ArchiveClient(profile, self, gate, self.guest, roads)}
        return StudyTask(task, tools, Worker(clients, ReceiverStats, self.ending))

    def run(self) -> None:
        work = self.work()
        work.list_instances()
        work.run()
        work.finish()

    def view(self) -> StudyView:
        reader = LedgerReader(self.path / "ledger.db")
        try:
            return next(reader.studies())
        finally:
            reader.close()

    @property
    def levels(self) -> list[str]:
        return [str(ask.level) for ask in self.asked]


class Visited(ArchiveThrottle):
    """A guest that notes what is asked of it, and whose moves are over when a test says so."""

    def __init__(self) -> None:
        stop, board = Shutdown(), StatusBoard()
        super().__init__(
            Limits(), {}, parallel=1, shared_state=ProcessState(), shutdown=stop, status_board=board
        )
        self.expired = False
        self.repeats: list[bool] = []

    @contextmanager
    def acquire_retrieval(self, *, is_repeat: bool = False) -> Iterator[RetrievalPermit]:
        self.repeats.append(is_repeat)
        with super().acquire_retrieval(is_repeat=is_repeat):
            yield Cut(self)


class Cut(RetrievalPermit):
    def __init__(self, throttle: Visited) -> None:
        super().__init__(throttle, float("inf"), ())
        self._visited = throttle

    @property
    def ended_by(self) -> str:
        return "the time window has closed" if self._visited.expired else ""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(gates, "backoff", lambda *_, **__: 0.0)
    made = Bench(tmp_path)
    yield made
    made.ledger.close()
    made.audit.close()


def sends(*refs: InstanceRef, then: RetrieveResult = SUCCESS) -> Reply:
    def reply(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        bench.arrive(*refs)
        return then

    return reply


def ended(bench: Bench) -> tuple[str, int | None, int]:
    view = bench.view()
    return view.outcome.code, view.expected, view.stored


def test_all_arrives_is_made_durable_and_is_complete(bench: Bench) -> None:
    bench.replies = [sends(*ALL)]
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)
    assert bench.levels == ["STUDY"]
    assert [path.name for path in bench.synced] == [f"{one.sop_uid}.dcm" for one in ALL]
    assert bench.view().attempts == 1


def test_a_disk_that_takes_no_study_is_tried_again_later_and_nothing_is_complete(bench: Bench) -> None:
    bench.replies = [sends(*ALL)]
    bench.disk_fails = 1
    bench.run()
    assert bench.view().outcome.status is OutcomeStatus.PENDING
    assert (bench.on_disk, bench.completed) == ({"4711": []}, [])
    assert ",study," not in (bench.path / "audit.csv").read_text()
    (said,) = bench.board.take_messages()
    assert "the disk failed: Input/output error" in said
    task = bench.ledger.task_of("1.2.1")
    assert task is not None
    assert bench.ledger.task_history(task.task_id).fruitless_rounds == {"move": 1}, "what came was lost"
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)
    assert bench.levels == ["STUDY", "STUDY"]
    assert bench.completed == [task.task_id]


def test_a_disk_that_never_takes_a_study_ends_it_with_the_reason(bench: Bench) -> None:
    bench.replies = [sends(*ALL)]
    bench.disk_fails = 100
    for _ in range(MAX_FRUITLESS_ROUNDS):
        assert bench.view().outcome.status is OutcomeStatus.PENDING
        bench.run()
    assert ended(bench) == ("images_refused", 4, 0)
    assert "Input/output error" in bench.view().outcome.reason
    assert bench.completed == []


def test_instances_of_an_earlier_run_that_the_disk_lost_are_fetched(bench: Bench) -> None:
    bench.arrive(*ALL)
    bench.replies = [sends(*ALL)]
    bench.disk_fails = 1
    bench.run()
    assert (bench.asked, bench.view().outcome.status) == ([], OutcomeStatus.PENDING)
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)


def test_a_task_that_cannot_be_listed_ends_without_what_the_disk_lost(bench: Bench) -> None:
    bench.arrive(*ALL[:2])
    bench.listings = [QueryFailed("out of resources", status=0xA700)]
    bench.disk_fails = 1
    work = bench.work()
    with pytest.raises(QueryFailed) as failed:
        work.list_instances()
    work.fail(failed.value)
    assert ended(bench) == ("query_failed", None, 0)


def test_files_of_an_outcome_are_not_discarded_with_those_of_a_retry(bench: Bench) -> None:
    bench.replies = [sends(*ALL[:3])]
    bench.run()
    assert ended(bench) == ("instances_missing", 4, 3)
    bench.ledger.retry(["instances_missing"])
    bench.replies = [sends(ALL[3])]
    bench.disk_fails = 1
    bench.run()
    assert len(bench.on_disk["4711"]) == 3
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)
    assert bench.asked[-1].sop_uids == (ALL[3].sop_uid,)


def test_what_lacks_is_topped_up(bench: Bench) -> None:
    bench.replies = [sends(*ALL[:2]), sends(*ALL[2:])]
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)
    assert bench.asked[1].sop_uids == tuple(one.sop_uid for one in ALL[2:])


def test_what_a_crash_left_is_adopted_and_not_asked_for(bench: Bench) -> None:
    def crash(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        bench.arrive(*ALL[:3])
        raise KeyboardInterrupt

    bench.replies = [crash]
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.view().outcome.status is OutcomeStatus.PENDING
    bench.replies = [sends(*ALL[3:])]
    bench.run()
    assert bench.asked[-1].sop_uids == (ALL[3].sop_uid,)
    assert ended(bench) == ("all_listed_stored", 4, 4)


def test_all_is_here_after_a_crash_so_nothing_is_asked(bench: Bench) -> None:
    bench.arrive(*ALL)
    bench.run()
    assert bench.asked == []
    assert ended(bench) == ("all_listed_stored", 4, 4)


def test_a_busy_archive_is_left_alone_and_asked_later(bench: Bench) -> None:
    bench.replies = [sends(then=BUSY)]
    bench.run()
    assert bench.view().outcome.status is OutcomeStatus.PENDING
    assert bench.levels == ["STUDY"]
    due = bench.ledger.next_due()
    assert due is not None
    assert due > 1e9


def test_a_busy_archive_is_not_asked_the_rest_of_the_round(bench: Bench) -> None:
    series = [InstanceRef("1.2.1", f"1.2.1.{one}", f"1.2.1.{one}.1") for one in range(1, 9)]
    bench.listings = [Listing(tuple(series), tuple(one.series_uid for one in series))]
    bench.replies = [sends(series[0]), sends(series[1]), sends(then=BUSY)]
    bench.run()
    assert bench.levels == ["STUDY", "SERIES", "SERIES", "SERIES"], "there was a gain, then there was none"
    task = bench.ledger.task_of("1.2.1")
    assert task is not None
    assert bench.ledger.task_history(task.task_id).fruitless_rounds == {"move": 1}


@pytest.mark.parametrize("error", [ConnectionLost("cut"), QueryFailed("A700", status=0xA700)])
def test_a_list_that_is_not_given_again_is_not_trusted(bench: Bench, error: Exception) -> None:
    bench.listings = [LISTED, error]
    bench.replies = [sends(*ALL, then=RetrieveResult(Verdict.SUCCESS, 0, completed=9))]
    bench.run()
    assert ended(bench) == ("list_cut_short", 4, 4)


def test_what_is_missing_is_missing_though_the_list_is_not_given_again(bench: Bench) -> None:
    bench.listings = [LISTED, ConnectionLost("cut")]
    bench.replies = [sends(*ALL[:3]), sends()]
    bench.run()
    assert ended(bench) == ("instances_missing", 4, 3)


def test_a_task_that_cannot_be_listed_ends_with_what_is_here_of_it(bench: Bench) -> None:
    bench.arrive(*ALL[:2])
    bench.listings = [QueryFailed("out of resources: Stone^Ada 0815", status=0xA700)]
    work = bench.work()
    with pytest.raises(QueryFailed) as failed:
        work.list_instances()
    work.fail(failed.value)
    assert ended(bench) == ("query_failed", None, 2)
    # What is said goes to the log: an archive's own words may name a patient.
    said = " ".join(bench.board.take_messages())
    assert "A700H" in said and "0815" not in said


def test_evidence_outlives_a_list_that_has_grown(bench: Bench) -> None:
    bench.listings = [Listing(ALL[:2], ("1.2.1.1",)), LISTED]
    bench.replies = [sends(*ALL[:2], then=RetrieveResult(Verdict.SUCCESS, 0, completed=7)), sends(*ALL[2:])]
    bench.run()
    assert ended(bench) == ("count_disagrees", 4, 4)


def test_stopped_twice_it_asks_no_more_and_holds_nothing_against_the_archive(bench: Bench) -> None:
    def cancelled(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        bench.arrive(ALL[0])
        assert watch.next_action() is MonitorAction.WAIT
        bench.stop.request()
        assert watch.next_action() is MonitorAction.WAIT, "what is in flight is finished"
        bench.stop.request()
        assert watch.next_action() is MonitorAction.CANCEL
        return CANCELLED

    bench.replies = [cancelled]
    with pytest.raises(Stopped):
        bench.run()
    assert len(bench.asked) == 1
    view = bench.view()
    assert (view.outcome.status, view.attempts) == (OutcomeStatus.PENDING, 0)


def test_when_the_window_has_closed_for_too_long_it_is_stopped_and_goes_on_later(bench: Bench) -> None:
    closed = Visited()
    bench.guest = closed

    def cut(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        bench.arrive(*ALL[:2])
        assert watch.next_action() is MonitorAction.WAIT
        closed.expired = True
        assert watch.next_action() is MonitorAction.CANCEL
        closed.expired = False
        assert watch.next_action() is MonitorAction.CANCEL, "what was cancelled stays so"
        return CANCELLED

    bench.replies = [cut, sends(*ALL[2:])]
    bench.run()
    view = bench.view()
    assert (view.outcome.status, view.attempts) == (OutcomeStatus.PENDING, 0), (
        "nothing is held against the archive"
    )
    assert [said for said in bench.board.take_messages() if "the time window has closed" in said]
    assert bench.ledger.waiting_tasks(time.time(), 1), "due at once: the window holds it up, nothing else"
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)
    assert bench.levels == ["STUDY", "IMAGE"]


def test_what_ended_by_itself_after_the_window_is_not_postponed(bench: Bench) -> None:
    closed = Visited()
    bench.guest = closed

    def late(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        closed.expired = True
        assert watch.next_action() is MonitorAction.CANCEL
        bench.arrive(*ALL)
        return SUCCESS

    bench.replies = [late]
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)


def test_only_the_first_question_counts_as_a_study(bench: Bench) -> None:
    visited = Visited()
    bench.guest = visited
    bench.replies = [sends(*ALL[:2]), sends(ALL[2]), sends(*ALL[2:])]
    bench.run()
    assert visited.repeats == [False, True, True]


def test_what_came_all_the_same_counts_though_it_was_stopped(bench: Bench) -> None:
    def all_here(bench: Bench, ask: RetrieveRequest, watch: RetrieveMonitor) -> RetrieveResult:
        bench.arrive(*ALL)
        bench.stop.request()
        bench.stop.request()
        return CANCELLED

    bench.replies = [all_here]
    bench.run()
    assert ended(bench) == ("all_listed_stored", 4, 4)


def test_stores_after_the_last_answer_are_a_gain_of_the_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.ledger.task_of("1.2.1")
    assert task is not None
    real = RetrievalRound._wait_for_stores

    def settle(self: RetrievalRound, *args: object) -> None:
        bench.arrive(*ALL[:3])
        real(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(RetrievalRound, "_wait_for_stores", settle)
        bench.replies = [sends(), sends(then=BUSY)]
        bench.run()
    assert bench.levels[:2] == ["STUDY", "IMAGE"]
    gained = bench.ledger.database.read(
        lambda c: [row[0] for row in c.exec_driver_sql("select newly_stored from attempts order by id")]
    )
    assert gained == [3, 0]
    assert bench.ledger.task_history(task.task_id).fruitless_rounds == {"move": 1}


def test_the_worst_answer_of_a_round_speaks_for_it() -> None:

    def verdict(*answers: Verdict) -> Verdict:
        told: Sequence[RetrieveResult] = [RetrieveResult(one) for one in answers]
        return RoundResult(Transport.MOVE, Level.SERIES, told, [], 0, "").round.verdict

    assert verdict(Verdict.SUCCESS, Verdict.SUCCESS) is Verdict.SUCCESS
    assert verdict(Verdict.WARNING, Verdict.RETRY) is Verdict.RETRY
    assert verdict(Verdict.WARNING, Verdict.LOST) is Verdict.LOST
    assert verdict(Verdict.RETRY, Verdict.CONFIGURATION) is Verdict.CONFIGURATION


def test_what_arrives_while_the_end_is_decided_is_decided_about(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, late = next_step, [ref("1.2.1", 9)]

    def slow(known: TaskSnapshot, *, jitter: float) -> Step:
        step = real(known, jitter=jitter)
        if isinstance(step, Finish) and late:
            bench.arrive(late.pop())
        return step

    monkeypatch.setattr("dicom_quarry.extraction.study_task.next_step", slow)
    bench.replies = [sends(*ALL)]
    bench.run()
    assert ended(bench) == ("unlisted_arrived", 4, 5)


def test_what_is_here_of_an_excluded_study_is_told(bench: Bench) -> None:
    bench.ledger.add_folders(1, ["4711"]).result()
    bench.arrive(ref("1.2.1", 1))
    bench.work().exclude("patient ID")
    assert bench.asked == []
    assert (bench.view().outcome.code, bench.view().stored) == ("excluded_but_stored", 1)


def test_nothing_of_an_excluded_study_is_asked_for(bench: Bench) -> None:
    bench.work().exclude("patient ID")
    assert (bench.asked, bench.view().outcome.code) == ([], "study_excluded")


def test_who_took_what_is_written_before_the_ledger_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    conclude = bench.ledger.conclude_task

    def concluding(task_id: int, end: TaskResult, claim: int, audit: Work[object]) -> Future[None]:
        told.append((bench.path / "audit.csv").read_text())
        return conclude(task_id, end, claim, audit)

    monkeypatch.setattr(bench.ledger, "conclude_task", concluding)
    bench.replies = [sends(*LISTED.instances)]
    bench.run()
    assert ",study," in told[0]
    assert f",1,1.2.1,4711,complete,all_listed_stored,{len(LISTED.instances)}," in told[0]


def test_why_a_study_was_put_off_and_how_it_was_listed_is_remembered(bench: Bench) -> None:
    bench.replies = [sends(then=BUSY)]
    bench.run()
    bench.ledger.close()
    reader = HistoryReader(bench.path / "ledger.db", "mismatch")
    (history,) = reader.study_histories_of_rows([1])
    reader.close()
    (listing,) = history.queries
    assert (listing.purpose, listing.result_count, listing.why) == ("listing", len(LISTED.instances), "")
    (pause,) = history.postponements
    assert pause.why.startswith("the archive is busy; next try in")
    assert pause.until > pause.at
