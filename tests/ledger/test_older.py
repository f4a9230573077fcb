"""Ledgers of other builds (dumps in older/): the versions since 1 are upgraded, older ones are refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger import migrations
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus
from tests.ledger.helpers import read_schema, read_version

OLDER = Path(__file__).parent / "older"
UPGRADABLE = sorted(OLDER.glob("version_*.sql"))


def restore(dump: Path, path: Path) -> Path:
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(dump.read_text())
    return path


@pytest.fixture(params=UPGRADABLE, ids=lambda dump: dump.stem)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The ledger of a job with two studies that are complete, and a row that matched nothing."""
    return restore(request.param, tmp_path / "ledger.db")


def test_there_is_a_dump_of_every_version() -> None:
    versions = {f"version_{number}" for number in range(1, migrations.schema_version() + 1)}
    assert {dump.stem for dump in UPGRADABLE} == versions


def test_it_becomes_what_a_new_one_is(older: Path, tmp_path: Path) -> None:
    Ledger(older).close()
    Ledger(tmp_path / "new.db").close()
    assert read_schema(older) == read_schema(tmp_path / "new.db")


def test_reading_it_upgrades_it_and_reports_the_same(older: Path) -> None:
    with closing(LedgerReader(older)) as reader:
        assert reader.counts().rows_by_status == {OutcomeStatus.COMPLETE: 2, OutcomeStatus.NOT_FOUND: 1}
        assert [view.outcome.status for view in reader.studies()] == [
            OutcomeStatus.COMPLETE,
            OutcomeStatus.COMPLETE,
        ]
    assert read_version(older) == [(migrations.schema_version(),)]


def test_where_it_cannot_be_upgraded_it_says_so(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        migrations,
        "MIGRATIONS",
        [*migrations.MIGRATIONS, lambda c: c.exec_driver_sql("select * from nowhere")],
    )
    with pytest.raises(LedgerError, match=r"older version of Quarry, and cannot be upgraded: no such table"):
        LedgerReader(older)


def test_a_newer_one_is_refused_by_readers_too(older: Path) -> None:
    with closing(sqlite3.connect(older)) as raw, raw:
        raw.execute("update schema_version set version = 999")
    with pytest.raises(LedgerError, match="newer version of Quarry"):
        LedgerReader(older)


@pytest.mark.parametrize("open_ledger", [Ledger, LedgerReader])
def test_one_from_before_version_1_is_refused_untouched(
    tmp_path: Path, open_ledger: Callable[[Path], Ledger | LedgerReader]
) -> None:
    path = restore(OLDER / "before_0.1.0.sql", tmp_path / "ledger.db")
    before = read_schema(path)
    with pytest.raises(LedgerError, match=r"before 0\.1\.0.*finish the job with that build, or extract to a"):
        open_ledger(path)
    assert read_schema(path) == before


def test_one_without_a_version_is_refused(older: Path) -> None:
    with closing(sqlite3.connect(older)) as raw, raw:
        raw.execute("drop table schema_version")
    with pytest.raises(LedgerError, match=r"before 0\.1\.0"):
        LedgerReader(older)
