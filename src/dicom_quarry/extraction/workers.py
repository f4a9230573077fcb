"""The threads of a job: one decides what is next, some ask about rows and list ahead, others move."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from dicom_quarry.errors import Lost, QueryFailed
from dicom_quarry.extraction.job_context import Tools
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.study_task import TaskWork
from dicom_quarry.extraction.work_queue import Conveyor
from dicom_quarry.model import Request, Task
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)

#: Requests read from the ledger at once.
_PAGE = 100

#: Rows that are asked about at once, ahead of their studies' listings.
_AHEAD = 8


class Workers:
    """Runs a job's threads to their end.

    The first error that is not an archive's mood ends the job: ``join`` raises it.
    """

    def __init__(self, tools: Tools, resolver: Resolver, *, parallel: int) -> None:
        self._tools = tools
        self._resolver = resolver
        self._requests: list[Request] = []
        # Where one retrieval is to wait for the other, so are questions: who decides asks as well.
        self._askers = parallel // 2 + 1 if parallel > 1 else 0
        self._questions: Conveyor[Callable[[], None]] = Conveyor(2 * _AHEAD, tools.stop.check)
        # Listed ahead, and no further: a list of instances takes memory.
        self._ready: Conveyor[TaskWork] = Conveyor(2 * parallel + 2, tools.stop.check)
        self._asked: set[int] = set()  # rows
        self._in_flight: set[int] = set()  # tasks
        self._changed = threading.Condition()
        self._news = False  # for who decides what is next
        self._error: BaseException | None = None
        names = ["feed"]
        names += [f"ask-{number}" for number in range(1, self._askers + 1)]
        names += [f"move-{number}" for number in range(1, parallel + 1)]
        work = [self._feed, *([self._ask] * self._askers), *([self._move] * parallel)]
        self._threads = [
            threading.Thread(target=self._guarded, args=(each,), name=name, daemon=True)
            for name, each in zip(names, work, strict=True)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def alive(self) -> bool:
        """True while any thread works."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout: float) -> None:
        """Wait for the threads a while; raises the error that ended the job."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._error is not None and not self.alive():
            raise self._error

    def wait(self) -> None:
        """Wait until every thread has ended, as it does once the job is stopped."""
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever ends a thread must end the job, and be seen
            self._fail(error)
        finally:
            for source in self._tools.sources.values():
                source.archive.hang_up()
            if work == self._feed:
                self._questions.close()
                self._ready.close()

    def _fail(self, error: BaseException) -> None:
        _log.debug("a worker ended", exc_info=error)
        self._error = self._error or error
        # Asked for twice it would cancel what is in flight.
        if not self._tools.stop.requested:
            self._tools.stop.request()

    # -- resolving and listing ahead

    def _feed(self) -> None:
        while True:
            self._tools.stop.check()
            tasks = self._next_tasks()
            for task in tasks:
                self._begin(task)
            if not (tasks or self._ask_more() or self._await_change()):
                return

    def _ask(self) -> None:
        while question := self._questions.take():
            question()

    def _put(self, question: Callable[[], None]) -> None:
        if self._askers:
            self._questions.put(question)
        else:
            question()

    def _next_tasks(self) -> list[Task]:
        with self._changed:
            # Before the ledger is read: what ends in between must not look like a task that nobody has.
            busy = frozenset(self._in_flight)
        waiting = self._tools.ledger.waiting_tasks(time.time(), len(busy) + _AHEAD)
        return [task for task in waiting if task.task_id not in busy]

    def _ask_more(self) -> bool:
        """Have the next few rows asked about; False if none waits, or enough of them are."""
        with self._changed:
            asked = frozenset(self._asked)
        if not self._requests:
            waiting = self._tools.ledger.waiting_requests(_PAGE + len(asked))
            self._requests = [request for request in reversed(waiting) if request.row not in asked]
        chosen = [self._requests.pop() for _ in range(min(_AHEAD - len(asked), len(self._requests)))]
        for request in chosen:
            self._tools.stop.check()
            with self._changed:
                self._asked.add(request.row)
            self._put(partial(self._resolve, request))
        return bool(chosen)

    def _resolve(self, request: Request) -> None:
        """Ask about a row; others are asked about while the answer is entered."""
        entered = self._resolver.resolve(request)
        entered.add_done_callback(partial(self._resolved, request.row))

    def _resolved(self, row: int, entered: Future[int]) -> None:
        if error := entered.exception():
            self._fail(error)
        with self._changed:
            self._asked.discard(row)
            # What was found is begun, and more is asked, several at a time.
            if len(self._asked) <= _AHEAD // 2:
                self._tell()

    def _await_change(self) -> bool:
        """Nothing can be started now; False if nothing is left to wait for."""
        with self._changed:
            if self._news:
                self._news = False
                return True
            due = self._tools.ledger.next_due()
            if not self._asked and not self._in_flight and due is None:
                return False
            pause = 1.0 if due is None else min(1.0, max(0.05, due - time.time()))
            self._changed.wait(pause)
        return True

    def _tell(self) -> None:
        self._news = True
        self._changed.notify()

    def _begin(self, task: Task) -> None:
        work = TaskWork(task, self._tools)
        if excluded := self._tools.exclusions.study(task.study):
            work.exclude(excluded)
            return
        with self._changed:
            self._in_flight.add(task.task_id)
        self._put(partial(self._list, work))

    def _list(self, work: TaskWork) -> None:
        try:
            work.list_instances()
        except (QueryFailed, Lost) as error:
            work.fail(error)
            self._ended(work)
            return
        self._ready.put(work)

    def _ended(self, work: TaskWork) -> None:
        with self._changed:
            self._in_flight.discard(work.task.task_id)
            if not self._in_flight:
                self._tell()

    # -- moving

    def _move(self) -> None:
        """The end of one task is on its way to the disk while the next is fetched."""
        ending: deque[TaskWork] = deque()
        finish = partial(self._finish, ending)
        try:
            while work := self._ready.take(idle=finish):
                try:
                    work.run()
                finally:
                    ending.append(work)
                self._finish(ending, but=1)
        finally:
            finish()

    def _finish(self, ending: deque[TaskWork], but: int = 0) -> None:
        while len(ending) > but:
            work = ending.popleft()
            try:
                work.finish()
            finally:
                self._ended(work)
