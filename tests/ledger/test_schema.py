"""A new ledger has the tables of schema.py. Migrations upgrade an older one; a newer one is left alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import migrations, schema
from dicom_quarry.ledger.database import Database
from tests.ledger.helpers import read_schema, read_version


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Database(tmp_path / "l.db").close()
    return tmp_path / "l.db"


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE job ADD COLUMN more TEXT"))


def fill_column(connection: Connection) -> None:
    connection.execute(text("UPDATE job SET more = 'yes'"))


def fail(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM nowhere"))


def test_what_is_made_is_what_is_written_down(path: Path) -> None:
    made = read_schema(path)
    assert set(made) == {*schema.metadata.tables, "schema_version"}
    for name, table in schema.metadata.tables.items():
        assert [column[0] for column in made[name].columns] == [column.name for column in table.columns]
        assert made[name].indexes == sorted(str(index.name) for index in table.indexes)
    assert read_version(path) == [(migrations.schema_version(),)]


def test_a_newer_ledger_is_refused_untouched(path: Path) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("update schema_version set version = 999")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"newer version of Quarry \(ledger 999, this one knows"):
        Database(path)
    assert path.read_bytes() == before


def test_an_older_ledger_is_upgraded_by_the_functions_that_it_lacks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("insert into job values ('kept', 'as it is')")
    before = migrations.schema_version()
    for number, more in enumerate(([add_column], [add_column, fill_column]), 1):
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, *more])
            for _ in range(2):  # the second time there is nothing to do
                Database(path).close()
        assert read_version(path) == [(before + number,)]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("select * from job").fetchall() == [("kept", "as it is", "yes")]


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, add_column, fail])
        with pytest.raises(LedgerError, match="cannot be opened"):
            Database(path)
    assert read_version(path) == [(migrations.schema_version(),)]
    assert [column[0] for column in read_schema(path)["job"].columns] == ["name", "value"]
