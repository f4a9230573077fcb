"""What a dispatch costs the database, by how much waits in a job: the window, a claim, an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from bench.results import Table, machine, median
from dicom_quarry.cluster.engine import ROWS_QUEUE, study_queue
from dicom_quarry.cluster.window import top_up
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.workers import ENGINE_SCHEMA, ENGINE_TABLE, Registration, list_workers
from dicom_quarry.ledger.ledger import Ledger, TaskResult
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.system.worker_identity import new_worker_identity

ARCHIVE = "main"
_ROUNDS = 40

#: A row and a study for each number; ``{state}`` and ``{later}`` are those of the study.
_ROWS = """
INSERT INTO {job}.requests (row, line, identity, keys, cells, state)
SELECT n, n + 1, decode(md5(n::text), 'hex'), 'A' || n, '["A' || n || '"]', '{state}'
FROM generate_series({first}, {last}) n
"""
_STUDIES = """
INSERT INTO {job}.tasks (id, archive, study_uid, patient_id, accession, study_date, modalities, description,
    state, not_before, selection, availability, stored, size, folder)
SELECT n, '{archive}', '2.25.' || n, 'P' || n, 'A' || n, '20180723', 'CT', 'CHEST', '{state}', {later},
    '', '', 0, 0, ''
FROM generate_series({first}, {last}) n
"""
_WANTED = "INSERT INTO {job}.request_tasks (row, task_id) SELECT n, n FROM generate_series({first}, {last}) n"


@contextmanager
def job_of(url: str, name: str, counts: Mapping[str, int]) -> Iterator[tuple[PostgresLocation, int]]:
    """Make a job that the workers have; ``counts`` are its studies by state, and its ``rows`` without one."""
    cluster = Cluster(url)
    job = cluster.add(name, Path("/nowhere"))
    location = cluster.location(job.number)
    with closing(Ledger(location)):
        pass
    with _connect(url) as connection:
        _fill(connection, location.schema, counts)
        connection.execute("UPDATE quarry.jobs SET with_workers = number = %s", (job.number,))
        yield location, job.number
        connection.execute("UPDATE quarry.jobs SET with_workers = false")
        connection.execute(f"DROP SCHEMA {location.schema} CASCADE")
        connection.execute(f"DELETE FROM {ENGINE_TABLE}")


def _connect(url: str) -> psycopg.Connection:
    # The engine's own functions name its tables without the schema.
    return psycopg.connect(url, autocommit=True, options=f"-c search_path={ENGINE_SCHEMA}")


def _fill(connection: psycopg.Connection, job: str, counts: Mapping[str, int]) -> None:
    first = 1
    for state, count in counts.items():
        span = {"job": job, "first": first, "last": first + count - 1}
        is_row = state == "rows"
        connection.execute(_ROWS.format(**span, state="waiting" if is_row else "resolved"))
        if not is_row:
            later = "extract(epoch FROM now()) + 1e6" if state == "later" else "NULL"
            study = "concluded" if state == "concluded" else "waiting"
            archive = "other" if state == "elsewhere" else ARCHIVE
            connection.execute(_STUDIES.format(**span, state=study, later=later, archive=archive))
            connection.execute(_WANTED.format(**span))
        first += count
    connection.execute(f"SELECT setval(pg_get_serial_sequence('{job}.tasks', 'id'), {first})")
    for table in ("requests", "tasks", "request_tasks", "claims"):
        connection.execute(f"VACUUM ANALYZE {job}.{table}")


def costs(url: str, counts: Mapping[str, int]) -> dict[str, float]:
    """Return the milliseconds of each part, as the worker sees them: medians."""
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        found.setdefault(name, []).append((time.perf_counter() - began) * 1e3)

    name = "-".join(f"{state}{count}" for state, count in counts.items())
    with job_of(url, name, counts) as (location, _), _connect(url) as connection:
        worker = new_worker_identity()
        Registration("W1", worker, "W1:11112", "/nowhere").beat(
            connection, {study_queue(ARCHIVE): 4, ROWS_QUEUE: 2}
        )
        workers = list_workers(connection)
        with closing(Ledger(location, worker, claims_ahead=0)) as ledger:
            for _ in range(_ROUNDS):
                connection.execute(f"DELETE FROM {ENGINE_TABLE}")
                timed("window, empty", lambda: top_up(connection, workers))
                timed("window, full", lambda: top_up(connection, workers))
                timed("claim", lambda: _work(ledger, timed))
    return {part: median(values) for part, values in found.items()}


def _work(ledger: Ledger, timed: Callable[[str, Callable[[], object]], None]) -> None:
    for task in ledger.claims.take_tasks(time.time(), 1, ARCHIVE):
        end = TaskResult("none_listed", {}, 0, 0, 0, "", None, ())
        timed("end", ledger.conclude_task(task.task_id, end, task.claim).result)


#: What waits, by the name of the row.
CASES: dict[str, dict[str, int]] = {
    "1,000 studies wait": {"waiting": 1_000},
    "100,000 studies wait": {"waiting": 100_000},
    "1,000,000 studies wait": {"waiting": 1_000_000},
    "1,000 wait, 100,000 have ended": {"concluded": 100_000, "waiting": 1_000},
    "1,000 wait, 100,000 for later": {"later": 100_000, "waiting": 1_000},
    "1,000 wait, 100,000 of another archive": {"elsewhere": 100_000, "waiting": 1_000},
    "100,000 rows and 1,000 studies wait": {"rows": 100_000, "waiting": 1_000},
}


def table(url: str) -> Table:
    """Return the costs of all cases, in milliseconds."""
    parts = ("window, empty", "window, full", "claim", "end")
    rows = []
    for name, counts in CASES.items():
        found = costs(url, counts)
        rows.append([name, *(f"{found.get(part, 0.0):.2f}" for part in parts)])
    return Table(
        "cluster-waiting",
        "A dispatch, by what waits in the job",
        ["", *(f"{part}, ms" for part in parts)],
        rows,
        ("Medians of 40, as a worker sees them: filling the window up, claiming a study, ending it.",),
        machine(),
    )
