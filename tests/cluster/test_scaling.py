"""What a dispatch reads: a few rows of the job's record, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from dicom_quarry.cluster import window
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.ledger.claim_statements import CLAIM_REQUESTS, CLAIM_TASKS, CLAIM_TASKS_OF_ARCHIVE
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.statements import NEXT_DUE, WAITING_REQUESTS
from tests.ledger.helpers import begin, request

MANY, FEW = 5000, 200

#: Studies that wait, before or behind as many in another state; each has a row.
_STUDIES = """
INSERT INTO tasks (id, archive, study_uid, patient_id, accession, study_date, modalities, description,
    state, not_before, selection, availability, stored, size, folder)
SELECT n, {archive}, '2.25.' || n, 'P' || n, 'A' || n, '20180723', 'CT', 'CHEST',
    {state}, {later}, '', '', 0, 0, ''
FROM generate_series(1, 2 * %(many)s) n
"""
_ROWS = """
INSERT INTO requests (row, line, identity, keys, cells, state)
SELECT n, n + 1, '', 'A' || n, '[]', CASE WHEN n <= 2 * %(many)s THEN 'resolved' ELSE 'waiting' END
FROM generate_series(1, 3 * %(many)s) n
"""
_WANTED = "INSERT INTO request_tasks (row, task_id) SELECT n, n FROM generate_series(1, 2 * %(many)s) n"

_ELSEWHERE = "CASE WHEN n > %(many)s THEN 'main' ELSE 'other' END"

#: What differs from studies of one archive that all wait.
CASES = {
    "all wait": {},
    "the first half has ended": {"state": "CASE WHEN n > %(many)s THEN 'waiting' ELSE 'concluded' END"},
    "all but one wait for later": {"later": "CASE WHEN n < 2 * %(many)s THEN 1e11 END"},
    "the first half waits for another archive": {"archive": _ELSEWHERE},
    "another archive has postponed the first half": {
        "archive": _ELSEWHERE,
        "later": "CASE WHEN n > %(many)s THEN NULL ELSE 1e9 END",
    },
}


@pytest.fixture
def empty(url: str) -> Iterator[psycopg.Connection]:
    """A connection to the record of a new job."""
    location = Cluster(url).location(1)
    with closing(Ledger(location)):
        pass
    options = f"-c search_path={location.schema}"
    with psycopg.connect(url, autocommit=True, options=options) as connection:
        yield connection


def fill(connection: psycopg.Connection, case: str) -> None:
    values = {"state": "'waiting'", "later": "NULL", "archive": "'main'", **CASES[case]}
    for statement in (_ROWS, _STUDIES.format(**values), _WANTED):
        connection.execute(statement, {"many": MANY})


@pytest.fixture(params=CASES, ids=lambda name: name)
def connection(request: pytest.FixtureRequest, empty: psycopg.Connection) -> psycopg.Connection:
    """A connection to the record of a job with many studies and rows."""
    fill(empty, request.param)
    empty.execute("ANALYZE")
    return empty


def rows_read(connection: psycopg.Connection, sql: str, values: dict[str, Any]) -> int:
    """Return the most rows that a statement has read of a large table; claims are few."""
    found = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).fetchone()
    assert found is not None
    steps, most = [found[0][0]["Plan"]], 0
    while steps:
        step = steps.pop()
        steps += step.get("Plans", [])
        passed = step["Actual Rows"] + step.get("Rows Removed by Filter", 0)
        if step.get("Relation Name") in ("requests", "tasks", "request_tasks"):
            most = max(most, passed * step["Actual Loops"])
    return int(most)


def test_each_statement_of_a_dispatch_reads_a_few_rows(connection: psycopg.Connection) -> None:
    claim = {"worker": "W1", "number": 1, "claimed_at": 1.0}
    statements: list[tuple[CompiledStatement, dict[str, Any]]] = [
        (NEXT_DUE, {}),
        (WAITING_REQUESTS, {"limit": 50}),
        (CLAIM_TASKS, {**claim, "now": 1.8e9, "limit": 1}),
        (CLAIM_TASKS_OF_ARCHIVE, {**claim, "now": 1.8e9, "limit": 1, "archive": "main"}),
        (CLAIM_REQUESTS, {**claim, "limit": 50}),
    ]
    for statement, values in statements:
        sql, fixed = statement.for_stream(connection)
        assert rows_read(connection, sql, {**fixed, **values}) <= FEW, sql
    for text in (window._STUDIES, window._ROWS, window._END):
        values = {"limit": 20, "archive": "main", "number": 1}
        assert rows_read(connection, window._of_job(text, 1), values) <= FEW, text


@pytest.mark.parametrize("case", [name for name in CASES if "another archive" in name])
def test_an_archive_is_found_by_its_own_index_before_the_server_has_statistics(
    empty: psycopg.Connection, case: str
) -> None:
    empty.execute("ALTER TABLE tasks SET (autovacuum_enabled = off)")
    fill(empty, case)
    values = {"worker": "W1", "number": 1, "claimed_at": 1.0, "now": 1.8e9, "limit": 1, "archive": "main"}
    sql, fixed = CLAIM_TASKS_OF_ARCHIVE.for_stream(empty)
    assert rows_read(empty, sql, {**fixed, **values}) <= FEW
    assert rows_read(empty, window._of_job(window._STUDIES, 1), values) <= FEW


def test_the_rows_of_a_new_table_have_statistics(empty: psycopg.Connection, url: str) -> None:
    rows = [request(number, f"A{number}") for number in range(1, MANY + 1)]
    with closing(Ledger(Cluster(url).location(1))) as ledger:
        begin(ledger, rows)
    sql, fixed = WAITING_REQUESTS.for_stream(empty)
    assert rows_read(empty, sql, {**fixed, "limit": 50}) <= FEW
