"""A large table, and a ledger that is half-way through it, made without an archive."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from statistics import median

from sqlalchemy import Connection, insert, update

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Attempt, Ledger, TaskResult
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.schema import (
    instances,
    request_tasks,
    requests,
    tasks,
    uids,
)
from dicom_quarry.ledger.schema import series as series_table
from dicom_quarry.model import AE, InstanceRef, RequestState, Selection, Study, TaskState

INSTANCES = 3
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_BATCH = 10_000

#: Of a hundred rows: those with a study that has ended, with one that waits, and with one to be tried later.
ENDED, WAIT, LATER = 50, 15, 15


def settings_for(out: Path) -> Settings:
    archive = ArchiveProfile(name="DEMO", address=AE("DEMO", "127.0.0.1", 4242))
    return Settings(archives=(archive,), to=out, skip_bad_rows=True)


def write_table(path: Path, first: int, last: int) -> None:
    """Rows of a patient and an accession, one in a thousand of them the same as the row before."""
    with path.open("w") as file:
        file.write("EMPI,Accession\n")
        for row in range(first, last + 1):
            number = row - (row % 1000 == 0)
            file.write(f"{number // 2:09d},{number:07d}18{number % 90000:05d}\n")


def read(table: Path, out: Path) -> int:
    return record.read_cohort(table, settings_for(out))[1]


def enter(table: Path, out: Path) -> int:
    """Read and enter, as a job does; the largest size of the write-ahead log."""
    ledger = Ledger(create_local(out, None).ledger)
    try:
        cohort, _ = record.read_cohort(table, settings_for(out))
        record.begin_or_continue(ledger, cohort, settings_for(out), update=True)
        return (out / ".quarry" / "ledger.db-wal").stat().st_size
    finally:
        ledger.close()


def begin_again(table: Path, out: Path) -> int:
    """Do the work of a run before its first query: read the table, and count."""
    ledger, reader = Ledger(create_local(out, None).ledger), LedgerReader(create_local(out, None).ledger)
    try:
        cohort, _ = record.read_cohort(table, settings_for(out))
        record.begin_or_continue(ledger, cohort, settings_for(out), update=False)
        return reader.counts().rows
    finally:
        reader.close()
        ledger.close()


def fill(out: Path, rows: int) -> None:
    """Half of the rows have ended, two in a hundred of them not well; others wait, now or for later."""
    ledger = Ledger(create_local(out, None).ledger)
    try:
        ledger.database.write(lambda connection: _fill(connection, rows))
    finally:
        ledger.close()


def _fill(connection: Connection, rows: int) -> None:
    connection.execute(insert(uids), [{"id": 1, "uid": _CLASS}, {"id": 2, "uid": _SYNTAX}])
    for start in range(1, rows + 1, _BATCH):
        found = [
            row for row in range(start, min(start + _BATCH, rows + 1)) if row % 100 < ENDED + WAIT + LATER
        ]
        connection.execute(insert(tasks), [_task(row) for row in found])
        connection.execute(insert(request_tasks), [{"row": row, "task_id": row} for row in found])
        marked = update(requests).where(requests.c.row.between(start, start + _BATCH - 1))
        connection.execute(
            marked.where(requests.c.row % 100 < ENDED + WAIT + LATER).values(state=RequestState.RESOLVED)
        )
        ended = [row for row in found if row % 100 < ENDED]
        connection.execute(
            insert(series_table), [{"id": row, "task_id": row, "series_uid": _uid(row, 1)} for row in ended]
        )
        connection.execute(insert(instances), [one for row in ended for one in _instances(row)])


def _uid(row: int, number: int) -> str:
    """As long as those that are made of UUIDs."""
    return f"2.25.{10**38 + row * 10**9 + number}"


def _task(row: int) -> dict[str, object]:
    ended, later = row % 100 < ENDED, row % 100 >= ENDED + WAIT
    well = row % 50 != 0
    return {
        "id": row,
        "archive": "DEMO",
        "study_uid": _uid(row, 0),
        "selection": "",
        "patient_id": f"{row // 2:09d}",
        "accession": f"{row:07d}18{row % 90000:05d}",
        "study_date": "20180723",
        "modalities": "CT",
        "description": "CT examination",
        "series_count": 1,
        "instance_count": INSTANCES,
        "availability": "ONLINE",
        "state": TaskState.CONCLUDED if ended else TaskState.WAITING,
        "not_before": time.time() + 3600 + row if later else None,
        "code": (("all_listed_stored" if well else "instances_missing") if ended else None),
        "details": json.dumps({"instances": 3} if well else {"missing": 1, "expected": 3}) if ended else None,
        "expected": INSTANCES if ended else None,
        "stored": INSTANCES if ended else 0,
        "size": 26_000 if ended else 0,
        "folder": f"{row // 2:09d}/{_uid(row, 0)}" if ended else "",
        "proved_at": time.time() if ended and well else None,
    }


def _instances(row: int) -> Iterator[dict[str, object]]:
    for number in range(2, 2 + INSTANCES):
        digest = hashlib.sha256(f"{row}/{number}".encode()).digest()
        yield {
            "task_id": row,
            "sop_uid": _uid(row, number),
            "series_id": row,
            "class_id": 1,
            "syntax_id": 2,
            "size": 8_700,
            "digest": digest,
            "path": None,
            "listed": 1,
        }


def verbs(out: Path, times: int = 50) -> dict[str, tuple[float, float]]:
    """Seconds that the ledger's verbs take in a job of this size, by name: the median and the longest."""
    ledger = Ledger(create_local(out, None).ledger)
    taken: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        change = work()
        if isinstance(change, Future):
            change.result()
        taken.setdefault(name, []).append(time.monotonic() - began)

    try:
        for number in range(times):
            _turn(ledger, timed, number)
    finally:
        ledger.close()
    return {name: (median(each), max(each)) for name, each in taken.items()}


def _turn(ledger: Ledger, timed: Callable[[str, Callable[[], object]], None], number: int) -> None:
    """Run the ledger's operations of the scheduler and a worker for one row."""
    timed("next task", lambda: ledger.waiting_tasks(time.time(), 5))
    timed("next rows", lambda: ledger.waiting_requests(100))
    timed("next due", ledger.next_due)
    task = ledger.waiting_tasks(time.time(), 1)[0]
    request = ledger.waiting_requests(1)[0]
    study = Study(_uid(10**8 + number, 0), "4711", "X", "20180723", "CT")
    timed("resolve", lambda: ledger.resolve_request(request, "DEMO", [(study, Selection())]).result())
    timed("postpone", lambda: ledger.postpone_task(task.task_id, time.time() + 7200))
    task = ledger.waiting_tasks(time.time(), 1)[0]
    attempt = Attempt(time.time(), time.time(), "STUDY", 3, 3, "success", 0, "")
    timed("record round", lambda: ledger.record_round(task.task_id, [attempt]))
    timed("history", lambda: ledger.task_history(task.task_id))
    timed("task of a study", lambda: ledger.task_of(task.study.study_uid))
    ref = InstanceRef(task.study.study_uid, "2.25.1", "2.25.2", _CLASS)
    row = InstanceRow(ref, True, _SYNTAX, 8_700, bytes(32))
    end = TaskResult("all_listed_stored", {"instances": 1}, 1, 1, 8_700, "x", time.time(), [row])
    timed("conclude", lambda: ledger.conclude_task(task.task_id, end).result())


def count(out: Path) -> float:
    """Seconds that counting takes; the shortest of three times, as others use the machine."""
    reader = LedgerReader(create_local(out, None).ledger)
    taken = []
    try:
        for _ in range(3):
            began = time.monotonic()
            reader.counts()
            taken.append(time.monotonic() - began)
        return min(taken)
    finally:
        reader.close()
