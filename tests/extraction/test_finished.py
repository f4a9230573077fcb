"""A run that has nothing to do leaves the reports that stand, if they say what the ledger does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.extraction.runner import JobResult
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import LocalPlace, create_local
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from tests.ledger.helpers import conclude, resolve, stored_row, study


def enter(folder: LocalPlace, **options: object) -> None:
    """What every run does first."""
    settings: Settings = load_settings(None, {"from": "PACS@127.0.0.1:104", "to": str(folder.out), **options})
    table = folder.out / "cohort.csv"
    table.write_text("Accession\nA1\n")
    ledger = Ledger(folder.ledger)
    cohort, _ = record.read_cohort(table, settings)
    record.begin_or_continue(ledger, cohort, settings, update=False)
    ledger.close()


def reported(folder: LocalPlace) -> api.Result:
    reader = LedgerReader(folder.ledger)
    counts = reader.counts()
    reader.close()
    return api.write_final_reports(JobResult(folder, counts, nothing_to_do=counts.is_finished))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[LocalPlace]:
    made = create_local(tmp_path / "out", None)
    enter(made)
    ledger = Ledger(made.ledger)
    [asked] = ledger.waiting_requests(1)
    resolve(ledger, asked, study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    ledger.close()
    api.report(made.out)
    yield made


def inode(folder: LocalPlace, name: str = "report.csv") -> int:
    """Another one for every time that a report is written."""
    return (folder.out / name).stat().st_ino


def test_reports_that_stand_are_left(folder: LocalPlace) -> None:
    for _ in range(2):
        before = inode(folder), inode(folder, "manifest.csv.gz")
        enter(folder)
        assert reported(folder).exit_code == 0
        assert (inode(folder), inode(folder, "manifest.csv.gz")) == before


@pytest.mark.parametrize("name", ["report.csv", "studies.csv", "manifest.csv.gz"])
def test_one_that_is_gone_is_written_again(folder: LocalPlace, name: str) -> None:
    (folder.out / name).unlink()
    assert reported(folder).exit_code == 0
    assert (folder.out / name).is_file()


def test_what_was_written_to_the_ledger_since_is_reported(folder: LocalPlace) -> None:
    before = inode(folder)
    enter(folder, parallel=3)
    reported(folder)
    assert inode(folder) != before


def test_what_is_in_the_write_ahead_log_alone_is_reported(folder: LocalPlace) -> None:
    before = inode(folder)
    ledger = Ledger(folder.ledger)
    ledger.set_metadata(refused="7")
    reported(folder)
    ledger.close()
    assert inode(folder) != before
