"""audit.csv: whole lines, only added, for their owner alone, whatever the disk and the threads do."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_quarry.errors import LedgerError
from dicom_quarry.jobs.audit_log import COLUMNS, AuditFile
from dicom_quarry.model import Study
from tests.e2e.file_systems import small_disk
from tests.peers.process import wait_for

STUDY = Study("1.2.3", "4711")


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.csv"


def test_lines_are_added_below_one_header(path: Path) -> None:
    for number in range(3):
        with AuditFile(path, "IRB-2026-014") as audit:
            audit.write("study", STUDY, instances=number, bytes=10, outcome="complete")
    assert path.read_text().count("time,event,user") == 1
    assert [line["instances"] for line in lines(path)] == ["0", "1", "2"]
    line = lines(path)[0]
    assert tuple(line) == COLUMNS
    assert (line["study_uid"], line["patient_id"], line["protocol"]) == ("1.2.3", "4711", "IRB-2026-014")
    assert line["user"]
    assert line["host"]
    assert line["time"].endswith("Z")
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_cell_is_a_formula_and_no_value_makes_a_line(path: Path) -> None:
    with AuditFile(path, '=HYPERLINK("http://x")') as audit:
        audit.write("study", Study("1.2", "+1\r\n2026,study"), code="@SUM", details='-2;=3,"')
    (line,) = lines(path)
    assert (line["protocol"][0], line["patient_id"][:2], line["code"]) == ("'", "'+", "'@SUM")
    assert line["details"] == "'-2;'=3,\""
    assert path.read_bytes().count(b"\n") == 2


def test_a_line_that_a_crash_cut_off_does_not_spoil_the_next(path: Path) -> None:
    with AuditFile(path) as audit:
        audit.write("study", STUDY)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with AuditFile(path) as audit:
        audit.write("study", STUDY, row=7)
    assert path.read_bytes().startswith(whole[:-9]), "what is there stays"
    assert lines(path)[-1]["row"] == "7"


def test_threads_share_it(path: Path) -> None:
    with AuditFile(path) as audit:

        def write(first: int) -> None:
            for row in range(first, first + 50):
                audit.write("study", row=row)

        threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 200, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(int(line["row"]) for line in lines(path)) == list(range(200))


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        path, messages, go_on = disk / "audit.csv", list[str](), threading.Event()

        def full(why: str) -> None:
            messages.append(why)
            go_on.wait(60)

        with AuditFile(path, on_full=full) as audit:
            filler = disk / "others"
            with filler.open("wb") as stream, pytest.raises(OSError, match="No space"):
                while True:
                    stream.raw.write(bytes(4096))
            # What is left of the page that the header is on takes some lines more.
            writer = threading.Thread(target=_fill, args=(audit,))
            writer.start()
            wait_for(lambda: bool(messages), "the full disk", 60)
            written = path.read_bytes()
            assert written.endswith(b"\r\n"), "nothing of the line that does not fit"
            filler.unlink()
            go_on.set()
            writer.join()
        assert [int(line["row"]) for line in lines(path)] == list(range(40))
        assert path.read_bytes().startswith(written)
        assert messages[0].startswith("disk full")


def test_a_line_that_does_not_fit_takes_no_other_process_s_line_with_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release writes beside the job, just when the disk is full: two descriptors, as of two processes."""
    write, truncate = os.write, os.ftruncate
    halves = iter([True])

    with AuditFile(path, on_full=lambda _: None) as job, AuditFile(path) as release:
        other = threading.Thread(target=release.write, args=("released", STUDY))

        def half(fd: int, line: bytes) -> int:
            return write(fd, line[: len(line) // 2]) if next(halves, False) else write(fd, line)

        def meanwhile(fd: int, size: int) -> None:
            other.start()
            other.join(0.5)
            truncate(fd, size)

        monkeypatch.setattr(os, "write", half)
        monkeypatch.setattr(os, "ftruncate", meanwhile)
        job.write("study", STUDY)
        other.join()
    assert sorted(line["event"] for line in lines(path)) == ["released", "study"]


def _fill(audit: AuditFile) -> None:
    for row in range(40):
        audit.write("study", STUDY, row=row, details="x" * 200)


@pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: path.symlink_to("elsewhere")])
def test_a_file_that_cannot_be_added_to_is_said(path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(path)
    with pytest.raises(LedgerError, match="cannot be written"):
        AuditFile(path)
