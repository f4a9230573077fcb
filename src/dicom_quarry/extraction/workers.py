"""The threads of a job: one resolves, some list ahead, others move. Nothing else is shared."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from dicom_quarry.errors import Lost, QueryFailed
from dicom_quarry.extraction.line import Line
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.retrieve import TaskWork
from dicom_quarry.extraction.stop import Stopped
from dicom_quarry.extraction.tools import Tools
from dicom_quarry.model import Request, Task

_log = logging.getLogger(__name__)

#: Requests read from the ledger at once.
_PAGE = 100

#: Rows asked about before their studies are listed.
_AHEAD = 8


class Workers:
    """Runs a job's threads to their end.

    The first error that is not an archive's mood ends the job: ``join`` raises it.
    """

    def __init__(self, tools: Tools, resolver: Resolver, *, parallel: int) -> None:
        self._tools = tools
        self._resolver = resolver
        self._requests: list[Request] = []
        # Where one retrieval is to wait for the other, so are questions: who resolves lists as well.
        self._listers = parallel // 2
        # Room for all that is found at once: who resolves goes on while they are listed.
        self._found: Line[TaskWork] = Line(_AHEAD + self._listers, tools.stop.check)
        # Listed ahead, and no further: a list of instances takes memory.
        self._ready: Line[TaskWork] = Line(2 * parallel + 2, tools.stop.check)
        self._in_flight: set[int] = set()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        names = ["resolve"]
        names += [f"list-{number}" for number in range(1, self._listers + 1)]
        names += [f"move-{number}" for number in range(1, parallel + 1)]
        work = [self._feed, *([self._list_found] * self._listers), *([self._move] * parallel)]
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
            _log.debug("a worker ended", exc_info=True)
            self._error = self._error or error
            self._tools.stop.request()
        finally:
            for source in self._tools.sources.values():
                source.archive.hang_up()
            if work == self._feed:
                self._found.close()
                self._ready.close()

    # -- resolving and listing ahead

    def _feed(self) -> None:
        while True:
            self._tools.stop.check()
            tasks = self._next_tasks()
            for task in tasks:
                self._begin(task)
            if not (tasks or self._resolve() or self._await_change()):
                return

    def _next_tasks(self) -> list[Task]:
        with self._changed:
            # Before the ledger is read: what ends in between must not look like a task that nobody has.
            busy = frozenset(self._in_flight)
        waiting = self._tools.ledger.waiting_tasks(time.time(), len(busy) + _AHEAD)
        return [task for task in waiting if task.task_id not in busy]

    def _resolve(self) -> bool:
        """Ask about the next few rows; False if none waits. Answers are entered while others are asked."""
        entered: list[Future[int]] = []
        while len(entered) < _AHEAD:
            if not self._requests:
                self._requests = self._tools.ledger.waiting_requests(_PAGE)[::-1] if not entered else []
            if not self._requests:
                break
            self._tools.stop.check()
            entered.append(self._resolver.resolve(self._requests.pop()))
        # The next look at the ledger leans on them.
        for future in entered:
            future.result()
        return bool(entered)

    def _await_change(self) -> bool:
        """Nothing can be started now; False if nothing is left to wait for."""
        with self._changed:
            due = self._tools.ledger.next_due()
            if not self._in_flight and due is None:
                return False
            pause = 1.0 if due is None else min(1.0, max(0.05, due - time.time()))
            self._changed.wait(pause)
        return True

    def _begin(self, task: Task) -> None:
        work = TaskWork(task, self._tools)
        if excluded := self._tools.exclusions.study(task.study):
            work.exclude(excluded)
            return
        with self._changed:
            self._in_flight.add(task.task_id)
        if self._listers:
            self._found.put(work)
        else:
            self._list(work)

    def _list_found(self) -> None:
        while work := self._found.take():
            self._list(work)

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
            self._changed.notify_all()

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
