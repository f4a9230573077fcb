"""A ledger of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


@pytest.fixture
def reader(ledger: Ledger, tmp_path: Path) -> Iterator[LedgerReader]:
    opened = LedgerReader(tmp_path / "ledger.db")
    yield opened
    opened.close()
