"""Ledgers that earlier versions wrote (dumps in older/): read, brought up to date, gone on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import dicom_quarry.ledger.schema as schema
from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.database import open_engine
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus

DUMPS = sorted((Path(__file__).parent / "older").glob("*.sql"))


@pytest.fixture(params=DUMPS, ids=lambda dump: dump.stem)
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The ledger of a job with two studies that are complete, and a row that matched nothing."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(request.param.read_text())
    return path


def test_it_becomes_what_a_new_one_is(older: Path) -> None:
    Ledger(older).close()
    engine = open_engine(older)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_reading_it_brings_it_up_to_date_and_tells_what_it_told(older: Path) -> None:
    with closing(LedgerReader(older)) as reader:
        assert reader.counts().rows_by_status == {OutcomeStatus.COMPLETE: 2, OutcomeStatus.NOT_FOUND: 1}
        assert [view.outcome.status for view in reader.studies()] == [
            OutcomeStatus.COMPLETE,
            OutcomeStatus.COMPLETE,
        ]
    with closing(sqlite3.connect(older)) as raw:
        assert raw.execute("select version_num from alembic_version").fetchall() == [(schema.REVISION,)]


def test_where_it_cannot_be_upgraded_it_says_so(older: Path) -> None:
    with closing(sqlite3.connect(older)) as raw, raw:
        raw.execute("drop table attempts")
    with pytest.raises(LedgerError, match=r"older version of Quarry, and cannot be upgraded: no such table"):
        LedgerReader(older)


def test_a_newer_one_is_refused_by_readers_too(older: Path) -> None:
    with closing(sqlite3.connect(older)) as raw, raw:
        raw.execute("update alembic_version set version_num = '0999'")
    with pytest.raises(LedgerError, match="newer version of Quarry"):
        LedgerReader(older)
