"""While the archive is out of reach everybody waits, and one thread alone probes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicom_quarry.archive.base import RetrieveMonitor, RetrieveRequest, RetrieveResult, StudyQueryResult
from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.errors import (
    ArchiveError,
    ConnectionLost,
    OperatorActionRequired,
    QueryFailed,
    Rejected,
    Unreachable,
)
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import Listing, SeriesInfo, Sink, Study, Task
from dicom_quarry.scheduling import circuit_breaker as gates
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.shared_state import ProcessState
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS
from dicom_quarry.system.shutdown import Shutdown, Stopped
from tests.scheduling.throttles import unlimited


class Probed:
    """An archive of which only the C-ECHO matters; ``answers`` are errors to raise, then it answers."""

    name = "main"

    def __init__(self, *errors: ArchiveError) -> None:
        self.errors = list(errors)
        self.probes = 0
        self.at_once = 0
        self.most_at_once = 0
        self.before_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def stop_requesting_counts(self) -> None:
        raise NotImplementedError

    def probe(self) -> None:
        with self._lock:
            self.probes += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before_answer()
            if self.errors:
                raise self.errors.pop(0)
        finally:
            with self._lock:
                self.at_once -= 1

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        raise NotImplementedError

    def count_studies(self, patient_id: str) -> int | None:
        raise NotImplementedError

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        raise NotImplementedError

    def list_instances(self, task: Task) -> Listing:
        raise NotImplementedError

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        raise NotImplementedError

    def release_thread(self) -> None:
        raise NotImplementedError

    def release_idle(self) -> None:
        pass

    def close(self) -> None:
        raise NotImplementedError


class Question:
    """Raises these errors one by one, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


DOWN = Unreachable("nobody listens")
BUSY = Rejected("try later", permanent=False)
NEVER = Rejected("not you", permanent=True)
FAILED = QueryFailed("A700", status=0xA700)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No time passes; the pauses are noted as how many failures they follow."""
    noted: list[int] = []

    def backoff(failures: int, chance: float, **_: float) -> float:
        noted.append(failures)
        return 0.0

    monkeypatch.setattr(gates, "backoff", backoff)
    return noted


def at_the(archive: Probed, stop: Shutdown, board: StatusBoard) -> CircuitBreaker:
    """The gate of an archive that may be asked at any time."""
    return CircuitBreaker(archive, stop, board, unlimited(stop, board))


def test_an_archive_that_answers_is_not_probed() -> None:
    archive = Probed()
    assert at_the(archive, Shutdown(), StatusBoard()).call(Question()) == "answer"
    assert archive.probes == 0


@pytest.mark.parametrize("error", [DOWN, BUSY, ConnectionLost("cut")])
def test_what_fails_on_the_road_is_asked_again_once_the_archive_answers(
    error: ArchiveError, pauses: list[int]
) -> None:
    archive, board = Probed(DOWN, BUSY, FAILED), StatusBoard()
    question = Question(error)
    assert at_the(archive, Shutdown(), board).call(question) == "answer"
    assert (question.asked, archive.probes) == (2, 4)
    assert pauses == [0, 1, 2, 3], "longer and longer"
    messages = list(board.take_messages())
    assert messages[0] == f"the archive is not available: {error}"
    assert messages[1].startswith("the archive answers again after")
    assert board.waiting_for == ""


def test_an_operation_that_fails_between_answered_probes_is_tried_less_and_less_often(
    pauses: list[int],
) -> None:
    question = Question(*[BUSY] * 4)
    assert at_the(Probed(), Shutdown(), StatusBoard()).call(question) == "answer"
    assert pauses == [0, 1, 2, 3]


def test_the_job_gives_up_where_the_archive_answers_probes_alone() -> None:
    stop, board, archive = Shutdown(), StatusBoard(), Probed()
    breaker = CircuitBreaker(archive, stop, board, unlimited(stop, board), give_up_after=0.01)
    with pytest.raises(OperatorActionRequired, match="give-up-after"):
        breaker.call(Question(*[DOWN] * 1_000_000))
    assert archive.probes > 0


def test_an_archive_that_is_down_for_long_is_waited_for() -> None:
    archive = Probed(*[DOWN] * 500)
    question = Question(*[DOWN] * 5)
    assert at_the(archive, Shutdown(), StatusBoard()).call(question) == "answer"
    assert question.asked == 6


def test_a_permanent_rejection_is_raised_at_once() -> None:
    archive = Probed()
    with pytest.raises(OperatorActionRequired, match="not you"):
        at_the(archive, Shutdown(), StatusBoard()).call(Question(NEVER))
    assert archive.probes == 0
    with pytest.raises(OperatorActionRequired, match="not you"):
        at_the(Probed(DOWN, NEVER), Shutdown(), StatusBoard()).call(Question(DOWN))


def test_an_answer_that_is_a_failure_closes_nothing() -> None:
    archive = Probed()
    with pytest.raises(QueryFailed):
        at_the(archive, Shutdown(), StatusBoard()).call(Question(FAILED))
    assert archive.probes == 0


def test_lost_again_and_again_though_it_answers_in_between_is_raised() -> None:
    archive = Probed()
    question = Question(*[ConnectionLost("cut")] * 99)
    with pytest.raises(ConnectionLost):
        at_the(archive, Shutdown(), StatusBoard()).call(question)
    assert question.asked == MAX_FRUITLESS_ROUNDS


@pytest.mark.parametrize(
    "failure",
    [
        QueryFailed("", status=0xA900),
        QueryFailed("", status=0x0122),
        QueryFailed("", status=400, is_http=True),
    ],
)
def test_a_query_that_the_archive_does_not_support_is_sent_once(
    failure: QueryFailed, pauses: list[int]
) -> None:
    question = Question(failure)
    with pytest.raises(QueryFailed):
        at_the(Probed(), Shutdown(), StatusBoard()).call(question, is_query=True)
    assert (question.asked, pauses) == (1, [])


def test_a_query_is_asked_again_before_its_failure_is_believed(pauses: list[int]) -> None:
    question = Question(FAILED, FAILED)
    assert at_the(Probed(), Shutdown(), StatusBoard()).call(question, is_query=True) == "answer"
    assert pauses == [1, 2]
    question = Question(*[FAILED] * 9)
    with pytest.raises(QueryFailed):
        at_the(Probed(), Shutdown(), StatusBoard()).call(question, is_query=True)
    assert question.asked == 3


def test_one_probes_and_the_others_wait_for_it() -> None:
    archive, board = Probed(*[DOWN] * 20), StatusBoard()
    waiting = threading.Barrier(6)
    breaker = at_the(archive, Shutdown(), board)

    def ask() -> str:
        first = True

        def question() -> str:
            nonlocal first
            if first:
                first = False
                waiting.wait(10)
                raise DOWN
            return "answer"

        return breaker.call(question)

    with ThreadPoolExecutor(6) as pool:
        assert [one.result(20) for one in [pool.submit(ask) for _ in range(6)]] == ["answer"] * 6
    assert archive.most_at_once == 1
    assert sum("answers again" in message for message in board.take_messages()) >= 1
    assert board.waiting_for == ""


def test_while_it_waits_it_says_so() -> None:
    archive, board = Probed(DOWN), StatusBoard()
    seen: list[str] = []
    archive.before_answer = lambda: seen.append(board.waiting_for)
    at_the(archive, Shutdown(), board).call(Question(DOWN))
    assert seen == ["the archive to answer"] * 2


def test_stop_ends_the_waiting() -> None:
    archive, stop = Probed(*[DOWN] * 1_000_000), Shutdown()
    archive.before_answer = lambda: stop.request() if archive.probes == 3 else None
    with pytest.raises(Stopped):
        at_the(archive, stop, StatusBoard()).call(Question(DOWN))
    assert archive.probes == 3


def test_stop_ends_the_waiting_of_those_who_do_not_probe() -> None:
    archive, stop = Probed(*[DOWN] * 1_000_000), Shutdown()
    probing, leave = threading.Event(), threading.Event()

    def hang() -> None:
        probing.set()
        leave.wait(10)

    archive.before_answer = hang
    breaker = at_the(archive, stop, StatusBoard())
    with ThreadPoolExecutor(2) as pool:
        prober = pool.submit(breaker.call, Question(DOWN))
        assert probing.wait(10)
        other = pool.submit(breaker.call, Question())
        stop.request()
        with pytest.raises(Stopped):
            other.result(10)
        leave.set()
        with pytest.raises(Stopped):
            prober.result(10)


def test_pauses_are_interrupted_by_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Shutdown()

    def endless(*_: object, **__: object) -> float:
        stop.request()
        return 1e6

    monkeypatch.setattr(gates, "backoff", endless)
    with pytest.raises(Stopped):
        at_the(Probed(), stop, StatusBoard()).call(Question(DOWN))
    stop = Shutdown()
    with pytest.raises(Stopped):
        at_the(Probed(), stop, StatusBoard()).call(Question(*[FAILED] * 5), is_query=True)


class Closed(ArchiveThrottle):
    """Outside the window until somebody has waited for it."""

    def __init__(self, stop: Shutdown, board: StatusBoard) -> None:
        super().__init__(
            Limits(), {}, parallel=4, shared_state=ProcessState(), shutdown=stop, status_board=board
        )
        self.open = False
        self.refusals = 0

    @property
    def is_open(self) -> bool:
        return self.open

    def wait_until_open(self) -> None:
        self.open = True

    def on_rejected(self, started_at: float, why: str = "") -> None:
        self.refusals += 1


def test_outside_the_window_no_association_is_kept_and_nothing_is_asked() -> None:
    archive, stop, board = Probed(), Shutdown(), StatusBoard()
    events: list[str] = []
    throttle = Closed(stop, board)
    archive.release_idle = lambda: events.append(f"hung up, open: {throttle.open}")  # type: ignore[method-assign]

    def question() -> str:
        events.append(f"asked, open: {throttle.open}")
        return "answer"

    assert CircuitBreaker(archive, stop, board, throttle).call(question) == "answer"
    assert events == ["hung up, open: False", "asked, open: True"]


def test_outside_the_window_it_does_not_even_probe(pauses: list[int]) -> None:
    archive, stop, board = Probed(DOWN), Shutdown(), StatusBoard()
    throttle = Closed(stop, board)
    throttle.open = True
    seen: list[bool] = []

    def probed() -> None:
        seen.append(throttle.open)
        throttle.open = False

    def question() -> str:
        throttle.open = False
        return asked()

    archive.before_answer = probed
    asked = Question(DOWN)
    assert CircuitBreaker(archive, stop, board, throttle).call(question) == "answer"
    assert seen == [True, True]


def test_a_rejected_association_is_a_refusal_and_a_lost_one_is_not(pauses: list[int]) -> None:
    stop, board = Shutdown(), StatusBoard()
    throttle = Closed(stop, board)
    throttle.open = True
    breaker = CircuitBreaker(Probed(), stop, board, throttle)
    assert breaker.call(Question(BUSY)) == "answer"
    assert throttle.refusals == 1
    assert breaker.call(Question(DOWN, ConnectionLost("cut"))) == "answer"
    assert throttle.refusals == 1
