"""Claims: which worker works on a row or a task, so that no other worker does.

A claim is a row of the table ``claims``. One statement takes it where there is none; the transaction that
settles the row, or ends or postpones the task, removes it, and fails if it is not there any more. So a worker
that was suspended, and whose claims were given to another, changes nothing when it goes on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any

from sqlalchemy import Connection, and_, delete, select

from dicom_quarry.errors import ClaimLost
from dicom_quarry.ledger import claim_statements as put
from dicom_quarry.ledger.backend import driver_connection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.records import make_request, make_task
from dicom_quarry.ledger.schema import claims
from dicom_quarry.ledger.statements import NEXT_DUE, WAITING_REQUESTS
from dicom_quarry.model import Request, Task


class Claims:
    """The claims of one worker in a ledger; for any thread.

    ``worker`` is its identity. A claim has a number that no other of the worker's has, later or before. Up to
    ``ahead`` new tasks are claimed with the row that requests them, which costs no transaction.
    """

    def __init__(self, database: Database, worker: str, ahead: int) -> None:
        self._database = database
        self.worker = worker
        self._max_ahead = ahead
        self._lock = threading.Lock()
        self._last_number = 0
        self._ahead: deque[Task] = deque()

    def take_tasks(self, now: float, limit: int, archive: str = "") -> list[Task]:
        """Claim tasks that can be started now: first postponed ones that are due, then the others.

        With an ``archive``, those of this archive alone.
        """
        taken = self._pop_ahead(limit, archive)
        if taken or not self._is_task_due(now):
            return taken
        values = self._new_claim()
        statement = put.CLAIM_TASKS_OF_ARCHIVE if archive else put.CLAIM_TASKS
        which = {"archive": archive} if archive else {}

        def work(connection: Connection) -> list[Any]:
            statement.run(connection, **values, **which, now=now, limit=limit)
            return _claimed(connection, put.CLAIMED_TASKS, values)

        return [make_task(row, values["number"]) for row in self._database.write(work)]

    def take_requests(self, limit: int) -> list[Request]:
        """Claim the next rows to resolve, in their order; of rows with the same keys the first alone."""
        if not self._database.fetch_all(WAITING_REQUESTS, limit=1):
            return []
        values = self._new_claim()

        def work(connection: Connection) -> list[Any]:
            put.CLAIM_REQUESTS.run(connection, **values, limit=limit)
            return _claimed(connection, put.CLAIMED_REQUESTS, values)

        return [make_request(row, values["number"]) for row in self._database.write(work)]

    def take_item(self, kind: str, statement: CompiledStatement, **values: object) -> tuple[int | None, int]:
        """Claim an item of a kind by a statement that chooses one; return it with the number of the claim.

        The item is None if there is none.
        """
        claim = self._new_claim()

        def work(connection: Connection) -> int | None:
            statement.run(connection, **claim, **values)
            mine = and_(claims.c.worker == self.worker, claims.c.number == claim["number"])
            return connection.scalar(select(claims.c.item).where(mine, claims.c.kind == kind))

        return self._database.write(work), claim["number"]

    def take_new(self, connection: Connection, tasks: Iterable[Task]) -> list[Task]:
        """Claim the first new tasks of a row within the transaction that resolves it: see ``keep``."""
        values = self._new_claim()
        taken: list[Task] = []
        for task in tasks:
            if len(self._ahead) + len(taken) >= self._max_ahead:
                break
            put.CLAIM_TASK.run(connection, **values, item=task.task_id)
            taken.append(Task(task.task_id, task.archive, task.study, task.selection, values["number"]))
        return taken

    def keep(self, resolved: Future[tuple[int, list[Task]]]) -> Future[int]:
        """Return a future of the number of rows alone; ``take_tasks`` gets the tasks once it is done."""
        rows: Future[int] = Future()

        def on_done(done: Future[tuple[int, list[Task]]]) -> None:
            if error := done.exception():
                rows.set_exception(error)
                return
            count, tasks = done.result()
            with self._lock:
                self._ahead.extend(tasks)
            rows.set_result(count)

        resolved.add_done_callback(on_done)
        return rows

    def end(self, connection: Connection, kind: str, item: int, number: int) -> None:
        """Remove a claim within a larger transaction; raise ClaimLost if it is not there any more."""
        if not number:
            return
        claim = {"worker": self.worker, "number": number, "kind": kind, "item": item}
        put.END_CLAIM.require_one(connection, ClaimLost(f"{kind} {item} is another worker's"), **claim)

    def require(self, connection: Connection, kind: str, item: int, number: int) -> None:
        """Raise ClaimLost within a larger transaction if a claim is not there any more."""
        if not number:
            return
        claim = {"worker": self.worker, "number": number, "kind": kind, "item": item}
        put.FIND_CLAIM.require_one(connection, ClaimLost(f"{kind} {item} is another worker's"), **claim)

    def free(self, is_gone: Callable[[str], bool]) -> None:
        """Remove the claims of other workers that are gone; without any, no transaction is made."""
        found = self._database.fetch_all(put.CLAIMING_WORKERS)
        gone = [row.worker for row in found if row.worker != self.worker and is_gone(row.worker)]
        if gone:
            theirs = claims.c.worker.in_(gone)
            self._database.write(lambda c: c.execute(delete(claims).where(theirs)) and None)

    def give_back_items(self, kind: str, items: Collection[int]) -> None:
        """Remove the claims that this worker still has on these rows or tasks."""
        mine = and_(claims.c.worker == self.worker, claims.c.kind == kind, claims.c.item.in_(items))
        self._database.write(lambda c: c.execute(delete(claims).where(mine)) and None)

    def give_back(self) -> None:
        """Remove the claims that this worker still has, at the end of its work."""
        with self._lock:
            self._ahead.clear()
        mine = claims.c.worker == self.worker
        if self._database.read(lambda c: c.scalar(select(claims.c.item).where(mine).limit(1))) is not None:
            self._database.write(lambda c: c.execute(delete(claims).where(mine)) and None)

    def _is_task_due(self, now: float) -> bool:
        due = self._database.fetch_all(NEXT_DUE)
        return bool(due) and (due[0].not_before or 0.0) <= now

    def _pop_ahead(self, limit: int, archive: str) -> list[Task]:
        with self._lock:
            taken = [task for task in self._ahead if archive in ("", task.archive)][:limit]
            for task in taken:
                self._ahead.remove(task)
            return taken

    def _new_claim(self) -> dict[str, Any]:
        with self._lock:
            self._last_number = max(self._last_number + 1, time.time_ns())
            return {"worker": self.worker, "number": self._last_number, "claimed_at": time.time()}


def _claimed(connection: Connection, statement: CompiledStatement, values: dict[str, Any]) -> list[Any]:
    names = {name: values[name] for name in ("worker", "number")}
    return statement.fetch_all(driver_connection(connection), **names)
