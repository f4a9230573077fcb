"""What keeps a job of a million rows as quick as one of ten: indices for what is asked again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from dicom_quarry.ledger.backend import backend_of
from dicom_quarry.ledger.cohort_rows import insert_rows, replace_rows
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import Request, Selection
from tests.ledger.helpers import (
    ARCHIVE,
    attempt,
    begin,
    conclude,
    derive,
    missing_row,
    request,
    resolve,
    stored_row,
    study,
    task_id,
)

#: A scan reads a whole table or index; a sort all that was found, before the first is given.
_SLOW = (
    "SCAN requests",
    "SCAN tasks",
    "SCAN request_tasks",
    "SCAN attempts",
    "SCAN instances",
    "TEMP B-TREE FOR ORDER",
)


@contextmanager
def plans(path: Path) -> Iterator[list[str]]:
    """How SQLite answers each question that is asked in the context."""
    asked: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        asked.append((statement, parameters))

    on = CompiledStatement.execute

    def noted(self: CompiledStatement, connection: Any, values: Mapping[str, object]) -> Any:
        connection.set_trace_callback(lambda sql: asked.append((sql, ())))
        try:
            return on(self, connection, values)
        finally:
            connection.set_trace_callback(None)

    found: list[str] = []
    event.listen(Engine, "before_cursor_execute", note)
    CompiledStatement.execute = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        CompiledStatement.execute = on  # type: ignore[method-assign]
        event.remove(Engine, "before_cursor_execute", note)
    with sqlite3.connect(path) as raw:
        for statement, parameters in asked:
            if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
                steps = raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()  # type: ignore[arg-type]
                found += [f"{step[3]}  [{statement}]" for step in steps]


@pytest.fixture
def busy(ledger: Ledger) -> Ledger:
    rows = [request(number, f"A{number}") for number in range(1, 9)]
    begin(ledger, rows)
    for number, one in enumerate(rows[:6], 1):
        resolve(ledger, one, study(number))
    ledger.postpone_task(task_id(ledger, "1.2.5"), 1e12)
    conclude(ledger, "1.2.6", [stored_row("1.2.6", 1)])
    return ledger


def _done(change: object) -> None:
    """Some changes are durable when their call returns, others when their future ends."""
    if isinstance(change, Future):
        change.result()


HOT: dict[str, Callable[[Ledger], object]] = {
    "next tasks": lambda ledger: ledger.waiting_tasks(1e9, 5),
    "next due": lambda ledger: ledger.next_due(),
    "next rows": lambda ledger: ledger.waiting_requests(100),
    "resolve": lambda ledger: resolve(ledger, request(7, "A7"), study(7)),
    "end of a row": lambda ledger: ledger.conclude_request(
        request(8, "A8"), "study_not_found", keys="accession"
    ),
    "postpone": lambda ledger: ledger.postpone_task(1, 5.0),
    "round": lambda ledger: ledger.record_round(1, [attempt()]),
    "history": lambda ledger: ledger.task_history(1),
    "folders": lambda ledger: ledger.folders_of(1),
    "task of a study": lambda ledger: ledger.task_of("1.2.3"),
    "first row": lambda ledger: ledger.first_row(1),
    "cells": lambda ledger: ledger.cells_of(1),
    "conclude": lambda ledger: conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)]),
    "late": lambda ledger: ledger.add_late_instance(6, stored_row("1.2.6", 2), "4711"),
}


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", HOT)
def test_what_is_asked_for_each_study_is_found_by_index(busy: Ledger, tmp_path: Path, name: str) -> None:
    with plans(tmp_path / "ledger.db") as found:
        _done(HOT[name](busy))
    assert found
    assert not [step for step in found if any(slow in step.upper() for slow in map(str.upper, _SLOW))]


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
def test_counting_asks_the_same_few_questions_however_many_rows(busy: Ledger, tmp_path: Path) -> None:
    reader = LedgerReader(tmp_path / "ledger.db")
    with plans(tmp_path / "ledger.db") as found:
        reader.counts()
    reader.close()
    assert 0 < len(found) < 30
    # Rows that are complete, nearly all in the end, are not looked at one by one.
    assert not [step for step in found if "CORRELATED" in step]


def test_a_table_passes_through_without_being_held(ledger: Ledger) -> None:
    """No more rows are taken from the table than the database has got, but for a batch."""
    taken = 0
    most = 0

    def rows() -> Iterator[Request]:
        nonlocal taken
        for number in range(1, 25_001):
            taken += 1
            yield request(number, f"A{number % 9000}")

    def entered(connection: object) -> None:
        nonlocal most

        def note(_c: object, _cursor: object, _s: str, parameters: object, *_: object) -> None:
            nonlocal most
            most = max(most, len(parameters) if isinstance(parameters, list) else 1)

        event.listen(Engine, "before_cursor_execute", note)
        try:
            insert_rows(connection, rows())  # type: ignore[arg-type]
        finally:
            event.remove(Engine, "before_cursor_execute", note)

    ledger.database.write(entered)
    assert taken == 25_000
    assert most <= 10_000
    assert [one.row for one in ledger.waiting_requests(2)] == [1, 2]
    assert len(ledger.waiting_requests(30_000)) == 9000, "rows with the same keys wait for the first"


def test_what_no_row_asks_for_any_more_does_not_stand_in_the_way(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A1"), request(2, "A2")])
    resolve(ledger, request(1, "A1"), study(1))
    resolve(ledger, request(2, "A2"), study(2))
    ledger.database.write(lambda c: replace_rows(c, [request(1, "A2")]))
    assert [task.study.study_uid for task in ledger.waiting_tasks(0.0, 10)] == ["1.2.2"]
    states = ledger.database.read(lambda c: c.exec_driver_sql("select state from tasks order by id").all())
    assert [row[0] for row in states] == ["unwanted", "waiting"]
    ledger.database.write(lambda c: replace_rows(c, [request(1, "A2"), request(2, "A1")]))
    _done(ledger.resolve_request(request(2, "A1"), ARCHIVE, [(study(1), Selection())]))
    assert {task.study.study_uid for task in ledger.waiting_tasks(0.0, 10)} == {"1.2.1", "1.2.2"}


def test_the_write_ahead_log_is_cut_back(tmp_path: Path) -> None:
    engine = backend_of(tmp_path / "l.db").open_engine()
    with engine.connect() as connection:
        limit = connection.exec_driver_sql("pragma journal_size_limit").scalar()
    engine.dispose()
    assert limit == 64 << 20


@pytest.mark.parametrize("location", ["sqlite"], indirect=True)
def test_who_reads_slowly_does_not_hold_the_log_up(
    busy: Ledger, reader: LedgerReader, tmp_path: Path
) -> None:
    """SQLite resets a write-ahead log once no reader uses it; ``verify`` may read for hours."""
    found = reader.instances(derive)
    next(found)
    conclude(busy, "1.2.1", [stored_row("1.2.1", 1)])
    with sqlite3.connect(tmp_path / "ledger.db", timeout=0) as raw:
        held, _, _ = raw.execute("pragma wal_checkpoint(truncate)").fetchone()
    assert not held


@pytest.mark.parametrize("page", [1, 2, 5, 1000])
def test_pages_lose_nothing(
    ledger: Ledger, reader: LedgerReader, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("dicom_quarry.ledger.reader._PAGE", page)
    monkeypatch.setattr("dicom_quarry.ledger.reader._STUDIES_AT_ONCE", page)
    begin(ledger, [request(number, f"A{number}") for number in range(1, 8)])
    for number in range(1, 8):
        resolve(ledger, request(number, f"A{number}"), study(number))
        if number % 3:
            uid = f"1.2.{number}"
            there = [stored_row(uid, one) for one in range(1, number)]
            conclude(ledger, uid, [*there, missing_row(uid, number)])
    listed = {number: [f"1.2.{number}.1.{one}" for one in range(1, number)] for number in (1, 2, 4, 5, 7)}
    stored = [view.ref.sop_uid for view in reader.instances(derive)]
    assert stored == [uid for uids in listed.values() for uid in uids]
    assert [view.ref.sop_uid for view in reader.instances(derive, study_uid="1.2.5")] == listed[5]
    absent = [(view.rows, view.ref.sop_uid) for view in reader.missing()]
    assert absent == [((number,), f"1.2.{number}.1.{number}") for number in listed]
