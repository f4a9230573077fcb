"""A ledger of its own for every test, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.reader import LedgerReader
from tests.postgres_server import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerLocation:
    if request.param == "sqlite":
        return tmp_path / "ledger.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.location()


@pytest.fixture
def ledger(location: LedgerLocation) -> Iterator[Ledger]:
    opened = Ledger(location)
    yield opened
    opened.close()


@pytest.fixture
def reader(ledger: Ledger, location: LedgerLocation) -> Iterator[LedgerReader]:
    opened = LedgerReader(location)
    yield opened
    opened.close()
