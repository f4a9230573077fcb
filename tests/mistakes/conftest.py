"""The archive that the mistakes are made against: that of the tests of the command (``demo_holding``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from tests.e2e.expected_outcomes import demo_holding
from tests.mistakes.commands import Shell


@pytest.fixture(scope="session")
def archive() -> Iterator[DemoArchive]:
    """An archive of more than sixty small studies; read only."""
    with DemoArchive(demo_holding()) as server:
        yield server


@pytest.fixture
def shell(
    tmp_path: Path,
    archive: DemoArchive,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    """A user in an empty folder."""
    return Shell(tmp_path, archive, capsys, monkeypatch)
