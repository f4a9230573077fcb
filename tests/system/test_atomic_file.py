"""Atomic files: whole or not at all, private, and durable unless that is not wanted."""

from __future__ import annotations

import errno
import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_quarry.system.atomic_file import atomic_write, atomic_write_text, replace_file, temporary_folder
from dicom_quarry.system.permissions import Permissions


class Disk:
    """Records what is synced, and how a name changes; ``error`` is what a sync of a directory raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.error = 0
        monkeypatch.setattr(os, "fsync", self._fsync)

        def replace(old: Path, new: Path) -> None:
            self.calls.append("rename")
            os.replace(old, new)  # noqa: PTH105

        monkeypatch.setattr(Path, "replace", replace)

    def _fsync(self, fd: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        self.calls.append("directory" if is_directory else "file")
        if self.error and is_directory:
            raise OSError(self.error, os.strerror(self.error))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_content_and_name_are_durable(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "report.csv"
    path.write_text("old")
    with atomic_write(path) as stream:
        stream.write(b"new")
        assert path.read_text() == "old" and not disk.calls
    assert path.read_text() == "new"
    assert disk.calls == ["file", "rename", "directory"]
    assert list(tmp_path.iterdir()) == [path] and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_of_the_moment_waits_for_no_disk(tmp_path: Path, disk: Disk) -> None:
    with atomic_write_text(tmp_path / "progress.json", durable=False) as text:
        text.write("{}")
    assert disk.calls == ["rename"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write_text(path) as text:
        text.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_that_were_chosen(tmp_path: Path) -> None:
    path = tmp_path / "shared.csv"
    with atomic_write_text(path, Permissions(0o640)) as text:
        text.write("x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_same_text_is_gzipped_to_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.csv.gz", "two.csv.gz"):
        with atomic_write_text(tmp_path / name) as text:
            text.write("Zürich\r\n")
    one, two = (tmp_path / name for name in ("one.csv.gz", "two.csv.gz"))
    assert one.read_bytes() == two.read_bytes()
    assert gzip.decompress(one.read_bytes()).decode() == "Zürich\r\n"


def test_a_directory_that_cannot_be_synced_is_accepted_and_one_that_fails_is_not(
    tmp_path: Path, disk: Disk
) -> None:
    new, path = tmp_path / "new", tmp_path / "path"
    disk.error = errno.EINVAL
    new.touch()
    replace_file(new, path)
    disk.error = errno.EIO
    new.touch()
    with pytest.raises(OSError, match="Input/output"):
        replace_file(new, path)


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from dicom_quarry.system.atomic_file import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "report.csv"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    (tmp_path / ".other.csv.x.part").touch()
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".report.csv.x.part").mkdir()
    with temporary_folder(path) as folder, atomic_write(path) as first:
        assert folder.is_dir()
        first.write(b"whole")
        with atomic_write(path) as second:  # by another process at the same time
            second.write(b"other")
    assert path.read_bytes() == b"whole"
    assert {one.name for one in tmp_path.iterdir()} == {"report.csv", ".other.csv.x.part"}
