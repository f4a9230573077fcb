"""Statements that PostgreSQL gets together: how often is waited for them, and what an interruption leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, text

from dicom_quarry.errors import LedgerError
from dicom_quarry.jobs.cluster.tables import AuditTable, create_tables
from dicom_quarry.ledger.backend import driver_connection
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.pipelined import PipelinedConnection
from dicom_quarry.ledger.postgres import PostgresBackend
from dicom_quarry.ledger.statements import METADATA
from tests.ledger.helpers import attempt, begin, conclude, end, request, resolve, stored_row, study, task_id
from tests.postgres_server import PostgresServer


@pytest.fixture
def ledger(postgres: PostgresServer) -> Iterator[Ledger]:
    opened = Ledger(postgres.location())
    begin(opened, [request(number, f"A{number}") for number in range(1, 10)])
    yield opened
    opened.close()


def work_on(ledger: Ledger, number: int, timed: Callable[[str], None]) -> None:
    """Do what a job does for a study in its ledger."""
    uid = f"1.2.{number}"
    resolve(ledger, request(number, f"A{number}"), study(number))
    timed("resolve")
    task = task_id(ledger, uid)
    timed("task")
    ledger.task_history(task)
    timed("history")
    ledger.add_folders(task, ["f"]).result()
    timed("folders")
    ledger.record_round(task, [attempt(3)])
    conclude(ledger, uid, [stored_row(uid, one) for one in range(1, 9)])
    timed("task of the study, and conclude")


def test_a_study_costs_a_few_waits_for_the_server(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    flush = PipelinedConnection.flush

    def counted(self: PipelinedConnection) -> None:
        if self._queue:
            waits.append(len(self._queue))
        flush(self)

    work_on(ledger, 1, lambda _: None)  # the UIDs of classes are entered once
    monkeypatch.setattr(PipelinedConnection, "flush", counted)
    found: dict[str, int] = {}

    def note(name: str) -> None:
        found[name] = len(waits)
        waits.clear()

    work_on(ledger, 2, note)
    assert found == {
        "resolve": 2,
        "task": 1,
        "history": 1,
        "folders": 1,
        "task of the study, and conclude": 3,
    }


def test_the_audit_line_of_an_outcome_is_in_its_transaction(ledger: Ledger) -> None:
    ledger.database.write(create_tables)
    audit, rows = AuditTable(ledger.database, ""), [stored_row("1.2.1", 1)]
    resolve(ledger, request(1, "A1"), study(1))
    lines: list[int] = []
    count = text("SELECT count(*) FROM audit")
    for _ in range(2):
        line = audit.write_with("study", study(1))
        concluded = ledger.conclude_task(1, end("all_listed_stored", {"instances": 1}, rows), 0, line)
        with suppress(LedgerError):  # the second time it is concluded already
            concluded.result()
        lines += ledger.database.read(lambda c: c.scalars(count).all())
    assert lines == [1, 1]


def test_what_is_prepared_stays_prepared(ledger: Ledger) -> None:
    """psycopg would deallocate all prepared statements after an ALTER, had it prepared one itself."""

    def work(connection: Connection) -> None:
        for _ in range(9):
            connection.execute(text("SELECT name FROM job WHERE name = :name"), {"name": "columns"})
        connection.execute(text("ALTER TABLE job ADD COLUMN more bigint"))

    ledger.add_folders(1, []).result()
    ledger.database.write(work)
    resolve(ledger, request(1, "A1"), study(1))
    assert ledger.task_of("1.2.1") is not None


def test_an_interrupted_wait_ends_the_connection(
    ledger: Ledger, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is still to come, and would be taken for that of the next statement."""

    class Interrupted:
        def poll(self) -> Any:
            raise KeyboardInterrupt

    connection = PostgresBackend(ledger.database._location).connect()  # type: ignore[arg-type]
    monkeypatch.setattr(connection, "_readable", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        METADATA.fetch_all(connection)
    assert PostgresBackend(ledger.database._location).is_lost(connection)  # type: ignore[arg-type]


def test_a_thread_that_waits_commits_itself_but_the_main_one(ledger: Ledger) -> None:
    def name(connection: Connection) -> str:
        assert driver_connection(connection) is not None
        return threading.current_thread().name

    assert ledger.database.write(name) == "ledger"
    with ThreadPoolExecutor(1, thread_name_prefix="worker") as pool:
        assert pool.submit(ledger.database.write, name).result().startswith("worker")
