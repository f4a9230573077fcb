"""Statements that the driver runs: in the same transactions, and with the same promises, as SQLAlchemy's."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    bindparam,
    insert,
    select,
)

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import schema
from dicom_quarry.ledger.backend import driver_connection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import folders, job, tasks
from tests.ledger.test_database import Work, gathered, names, put

ADD = CompiledStatement(insert(job), "name", "value")
VALUE = CompiledStatement(select(job.c.name, job.c.value).where(job.c.name == bindparam("name")))
ALL = CompiledStatement(select(job.c.name))


def add(name: str) -> Work:
    return lambda connection: ADD.run(connection, name=name, value="prepared")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "l.db")
    yield opened
    opened.close()


def test_a_piece_that_fails_is_undone_alone_whoever_ran_its_statements(database: Database) -> None:
    def half(connection: Connection) -> None:
        add("half")(connection)
        put("other half")(connection)
        raise KeyError("mine")

    def both(connection: Connection) -> None:
        put("b")(connection)
        add("c")(connection)

    done = gathered(database, add("a"), half, add("a"), both)
    done[0].result(10)
    with pytest.raises(KeyError, match="mine"):
        done[1].result(10)
    with pytest.raises(sqlite3.IntegrityError):
        done[2].result(10)
    done[3].result(10)
    assert names(database) == {"a", "b", "c"}


def test_every_transaction_is_a_new_one_to_sqlalchemy_too(database: Database) -> None:
    def joined(connection: Connection) -> tuple[bool, bool]:
        before = connection.in_transaction()
        connection.execute(select(job.c.name))
        below: Any = driver_connection(connection)
        return before, below.in_transaction

    assert [database.write(joined) for _ in range(2)] == [(False, True)] * 2


def _by_itself(connection: Connection) -> None:
    """As SQLite may do where a disk is full, or fails."""
    driver_connection(connection).execute("ROLLBACK")
    raise KeyError("of the piece")


def _no_table(connection: Connection) -> None:
    driver_connection(connection).execute("select * from no_such_table")


def _at_the_end(connection: Connection) -> None:
    driver_connection(connection).execute("PRAGMA defer_foreign_keys=ON")
    driver_connection(connection).execute("insert into folders values (1, 'of no task')")


@pytest.mark.parametrize(("fails", "error"), [(_by_itself, KeyError), (_at_the_end, sqlite3.IntegrityError)])
def test_a_piece_that_fails_with_its_transaction_is_undone_alone(
    database: Database, fails: Work, error: type[Exception]
) -> None:
    before, failed, after = gathered(database, add("a"), fails, put("b"))
    with pytest.raises(error):
        failed.result(10)
    before.result(10)
    after.result(10)
    assert names(database) == {"a", "b"}
    assert database.fetch_all(CompiledStatement(select(folders.c.path))) == []


def test_a_disk_that_fails_reaches_everybody_and_the_writer_lives_on(database: Database) -> None:
    for future in gathered(database, add("a"), _no_table, put("b")):
        with pytest.raises(LedgerError, match="could not be written"):
            future.result(10)
    assert names(database) == set()
    database.write(add("c"))
    database.write(put("d"))
    assert names(database) == {"c", "d"}


def test_several_threads_see_what_is_committed_and_nothing_else(database: Database) -> None:
    def seen(name: str) -> list[str]:
        database.write(add(name))
        return [row.value for row in database.fetch_all(VALUE, name=name)]

    def before(connection: Connection) -> None:
        add("later")(connection)
        assert database.fetch_all(VALUE, name="later") == []

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(seen, map(str, range(200)))) == [["prepared"]] * 200
    database.write(before)
    assert database.fetch_all(VALUE, name="later") == [("later", "prepared")]


def test_a_snapshot_and_a_stream_see_one_moment(database: Database) -> None:
    database.write(add("a"))
    stream = database.read_pool.stream(ALL)
    with database.read_pool.snapshot() as connection:
        found = [ALL.fetch_all(connection), [next(stream)]]
        database.write(add("b"))
        found += [ALL.fetch_all(connection), list(stream)]
    assert found == [[("a",)], [("a",)], [("a",)], []]
    assert database.fetch_all(ALL) == [("a",), ("b",)]


def test_a_stream_that_is_left_half_way_holds_nothing_up(database: Database, tmp_path: Path) -> None:
    for name in "abc":
        database.write(add(name))
    stream = database.read_pool.stream(ALL)
    next(stream)
    stream.close()
    with sqlite3.connect(tmp_path / "l.db", timeout=0) as raw:
        held, _, _ = raw.execute("pragma wal_checkpoint(truncate)").fetchone()
    assert not held


def test_a_value_that_is_not_given_is_an_error_and_not_null(database: Database) -> None:
    for run in (lambda: database.fetch_all(VALUE), lambda: database.write(lambda c: ADD.run(c, name="a"))):
        with pytest.raises(sqlite3.ProgrammingError, match="did not supply a value"):
            run()


def test_who_reads_cannot_write(database: Database) -> None:
    with (
        database.read_pool.snapshot() as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        ADD.execute(connection, {"name": "a", "value": ""})


def test_what_is_not_named_has_its_default(database: Database) -> None:
    texts = ("archive", "study_uid", "patient_id", "accession", "study_date", "modalities", "description")
    some = CompiledStatement(insert(tasks).values(state="waiting"), *texts)
    database.write(lambda c: some.run_many(c, [{name: name for name in texts}]))
    chosen = select(tasks.c.archive, tasks.c.state, tasks.c.selection, tasks.c.stored, tasks.c.code)
    assert database.fetch_all(CompiledStatement(chosen)) == [("archive", "waiting", "", 0, None)]


def _open(path: Path) -> int:
    """How many descriptors of this process are of the file, or of one beside it."""
    held = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
    return sum(one.startswith(str(path)) for one in held)


def test_closing_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    database = Database(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: database.fetch_all(ALL), range(50)))
    with database.read_pool.snapshot() as lent:
        database.close()
        assert ALL.fetch_all(lent) == [], "who reads is not cut off"
    assert _open(path) == 0


def test_values_are_the_same_whoever_writes_and_reads_them(database: Database) -> None:
    """SQLAlchemy makes floats, and wraps bytes, on their way in; SQLite and the driver do so, too."""
    columns = [column for table in schema.metadata.tables.values() for column in table.c]
    kinds = {type(column.type) for column in columns}
    assert kinds == {BigInteger, Text, Float, LargeBinary}, "add the new one to this test"
    table = Table("kinds", MetaData(), *(Column(kind.__name__, kind) for kind in kinds))
    given = {"BigInteger": 1, "Text": "ä\0", "Float": 2, "LargeBinary": b"\0\xff"}

    def write(connection: Connection) -> list[Row[Any]]:
        table.create(connection)
        connection.execute(insert(table), given)
        CompiledStatement(insert(table)).run(connection, **given)
        return list(connection.execute(select(table)))

    found = [tuple(map(repr, row)) for row in database.write(write)]
    found += [tuple(map(repr, row)) for row in database.fetch_all(CompiledStatement(select(table)))]
    assert found == [tuple(repr({**given, "Float": 2.0}[kind.__name__]) for kind in kinds)] * 4


def test_nothing_is_compiled_before_it_is_run() -> None:
    code = (
        "from dicom_quarry.ledger import ledger, statements as put\n"
        "made = [one for one in vars(put).values() if type(one).__name__ == 'CompiledStatement']\n"
        "print(len(made) > 10, sum('_for_sqlite' in vars(one) for one in made))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "0"]
