"""A new ledger has the tables of schema.py. Migrations upgrade an older one; a newer one is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import migrations, schema
from dicom_quarry.ledger.database import Database, upgrade_ledger
from dicom_quarry.ledger.location import LedgerLocation
from tests.ledger.helpers import raw_query, read_schema, read_version


@pytest.fixture
def place(location: LedgerLocation) -> LedgerLocation:
    Database(location).close()
    return location


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE job ADD COLUMN more TEXT"))


def fill_column(connection: Connection) -> None:
    connection.execute(text("UPDATE job SET more = 'yes'"))


def fail(connection: Connection) -> None:
    connection.execute(text("SELECT * FROM nowhere"))


def test_what_is_made_is_what_is_written_down(place: LedgerLocation) -> None:
    made = read_schema(place)
    assert set(made) == {*schema.metadata.tables, "schema_version"}
    for name, table in schema.metadata.tables.items():
        assert [column[0] for column in made[name].columns] == [column.name for column in table.columns]
        assert made[name].indexes == sorted(str(index.name) for index in table.indexes)
    assert read_version(place) == [(migrations.schema_version(),)]


def test_a_newer_ledger_is_refused_untouched(place: LedgerLocation) -> None:
    raw_query(place, "update schema_version set version = 999")
    before = place.read_bytes() if isinstance(place, Path) else read_schema(place)
    with pytest.raises(LedgerError, match=r"newer version of Quarry \(ledger 999, this one knows"):
        Database(place)
    assert before == (place.read_bytes() if isinstance(place, Path) else read_schema(place))


def test_an_older_ledger_is_upgraded_by_the_functions_that_it_lacks(
    place: LedgerLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw_query(place, "insert into job values ('kept', 'as it is')")
    before = migrations.schema_version()
    for number, more in enumerate(([add_column], [add_column, fill_column]), 1):
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, *more])
            for _ in range(2):  # the second time there is nothing to do
                upgrade_ledger(place)
        assert read_version(place) == [(before + number,)]
    assert raw_query(place, "select * from job") == [("kept", "as it is", "yes")]


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(
    place: LedgerLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, add_column, fail])
        with pytest.raises(LedgerError, match="cannot be upgraded"):
            upgrade_ledger(place)
    assert read_version(place) == [(migrations.schema_version(),)]
    assert [column[0] for column in read_schema(place)["job"].columns] == ["name", "value"]
