"""Processor time of the ledger for each study of a job of small ones, on SQLite and on PostgreSQL.

``python -m bench.verbs [STUDIES [ROWS]]``; then a table of ROWS rows is entered on both.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tests.postgres_server import running_postgres

from dicom_quarry.ledger.cohort_rows import insert_rows
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Attempt, Ledger, TaskResult
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.query_log import QueryLogEntry, log_query
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import InstanceRef, Request, Selection, Study

T = TypeVar("T")

INSTANCES = 5
_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_ASKED = QueryLogEntry("main", "qido", "row", "STUDY", "AccessionNumber", 1.8e9, 0.25, 1, 1)


class Meter:
    """Adds up the processor time of the whole process, as the ledger's own thread is a part of it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        began = time.process_time_ns()
        result = work()
        if isinstance(result, Future):
            result.result()
        self.spent[name] += time.process_time_ns() - began
        return result


def study_of(number: int) -> Study:
    return Study(
        f"2.25.{10**30 + number}", f"P{number}", f"A{number}", "20180723", "CT", "CHEST", 1, INSTANCES
    )


def turn(ledger: Ledger, timed: Meter, request: Request) -> None:
    """Run the ledger's reads and writes of one row, up to the end of its study.

    A job whose paths have a column of the table reads that, too.
    """
    study, database = study_of(request.row), ledger.database
    timed("note query", lambda: log_query(database, _ASKED, row=request.row))
    timed("resolve", lambda: ledger.resolve_request(request, "main", [(study, Selection())]))
    (task,) = timed("claim tasks", lambda: ledger.claims.take_tasks(time.time(), 4))
    timed("next due", ledger.next_due)
    timed("history", lambda: ledger.task_history(task.task_id))
    timed("note query", lambda: log_query(database, _ASKED, task_id=task.task_id))
    timed("add folders", lambda: ledger.add_folders(task.task_id, [f"{study.patient_id}/{study.study_uid}"]))
    timed("folders", lambda: ledger.folders_of(task.task_id))
    attempt = Attempt(1.0, 2.0, "STUDY", INSTANCES, INSTANCES, "success", 200, "", "wado")
    # As in a job it is not waited for: it is written with the outcome.
    timed("record round", lambda: ledger.record_round(task.task_id, [attempt], task.claim) and None)
    series = f"{study.study_uid}.1"
    refs = [InstanceRef(study.study_uid, series, f"{series}.{one}", _CLASS) for one in range(INSTANCES)]
    rows = [InstanceRow(ref, True, _SYNTAX, 9000, bytes(32)) for ref in refs]
    facts = {"instances": INSTANCES}
    end = TaskResult("all_listed_stored", facts, INSTANCES, INSTANCES, 9000 * INSTANCES, "P", 1.5e9, rows)
    timed("conclude", lambda: ledger.conclude_task(task.task_id, end, task.claim))


def derive(study: Study, ref: InstanceRef) -> PurePosixPath:
    return PurePosixPath(study.patient_id, ref.sop_uid)


def bench_studies(location: LedgerLocation, studies: int) -> Meter:
    """Run a job of small studies, and read its reports."""
    timed = Meter()
    requests = list(make_requests(studies))
    ledger = Ledger(location)
    ledger.database.write(lambda connection: insert_rows(connection, requests))
    while page := timed("claim rows", lambda: ledger.claims.take_requests(32)):
        for request in page:
            turn(ledger, timed, request)
    ledger.close()
    reader = LedgerReader(location)
    for name in ("rows", "studies", "missing"):
        timed(f"report: {name}", lambda name=name: list(getattr(reader, name)()))  # type: ignore[misc]
    timed("report: instances", lambda: list(reader.instances(derive)))
    reader.close()
    return timed


def make_requests(rows: int) -> Iterator[Request]:
    """Make the rows of a table one by one, as they are read."""
    for row in range(1, rows + 1):
        yield Request(row, row + 1, (("AccessionNumber", f"A{row}"),), (f"A{row}",))


def enter_table(location: LedgerLocation, rows: int) -> float:
    """Enter a table; return the seconds."""
    ledger = Ledger(location)
    began = time.monotonic()
    ledger.database.write(lambda connection: insert_rows(connection, make_requests(rows)))
    seconds = time.monotonic() - began
    ledger.close()
    return seconds


def print_meters(meters: dict[str, Meter], studies: int) -> None:
    """Print microseconds of a processor for each study."""
    print(f"{'us a study':20}", *(f"{name:>12}" for name in meters))
    for name in next(iter(meters.values())).spent:
        print(f"{name:20}", *(f"{one.spent[name] / studies / 1000:12.1f}" for one in meters.values()))
    print(f"{'all':20}", *(f"{one.spent.total() / studies / 1000:12.1f}" for one in meters.values()))


def main(studies: int, rows: int) -> None:
    """Compare the two databases; the server's processor time is not counted."""
    meters: dict[str, Meter] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, running_postgres() as server:
        places: dict[str, Callable[[str], LedgerLocation]] = {
            "SQLite": lambda name: Path(folder) / f"{name}.db",
            "PostgreSQL": lambda _: server.location(),
        }
        # In a thread of its own, as in a job: the main thread leaves commits to others, for Ctrl-C.
        with ThreadPoolExecutor(1) as thread:
            for name, place in places.items():
                meters[name] = thread.submit(bench_studies, place("studies"), studies).result()
        print_meters(meters, studies)
        seconds = {name: enter_table(place("table"), rows) for name, place in places.items()}
    for name, taken in seconds.items():
        print(f"{rows} rows entered on {name}: {taken:.1f} s")
    print(f"PostgreSQL takes {seconds['PostgreSQL'] / seconds['SQLite']:.2f} times as long")
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:]]
    main(*(numbers + [2000, 1_000_000][len(numbers) :]))
