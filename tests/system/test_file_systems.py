"""The type, the free space and the names of a file system; durable names in a directory."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicom_quarry.system import file_systems
from dicom_quarry.system.file_systems import (
    distinguishes_names,
    file_system_type,
    free_bytes,
    has_hard_links,
    sync_directory,
)

MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs {root} tmpfs rw 0 0
server:/export {root}/pacs nfs4 rw,vers=4.2 0 0
/dev/sdb1 {root}/pacs/local xfs rw 0 0
server:/two {root}/with\\040blank\\134slash cifs rw 0 0
server:/three {root}/données nfs rw 0 0
/dev/sdc1 {root}/twice ext4 rw 0 0
host:/ {root}/twice fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("below", "kind"),
    [
        ("", "tmpfs"),
        ("pacs", "nfs4"),
        ("pacs/deep/er", "nfs4"),
        ("pacsother", "tmpfs"),
        ("pacs/local/x", "xfs"),
        ("with blank\\slash/x", "cifs"),
        ("données/x", "nfs"),
        ("twice", "fuse.sshfs"),
    ],
)
def test_the_nearest_mount_gives_the_type(tmp_path: Path, below: str, kind: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS.replace("{root}", str(tmp_path / "root")), encoding="utf-8")
    assert file_system_type(tmp_path / "root" / below, mounts) == kind
    assert file_system_type(Path("/"), mounts) == "ext4"


def test_a_link_to_a_network_folder_is_on_the_network(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(f"s:/ {tmp_path}/net nfs rw 0 0\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "link").symlink_to("net")
    assert file_system_type(tmp_path / "link", tmp_path / "mounts") == "nfs"


def test_without_a_mount_table_the_type_is_unknown(tmp_path: Path) -> None:
    assert file_system_type(tmp_path, tmp_path / "nothing") == ""


def test_this_computers_root_has_a_type() -> None:
    assert file_system_type(Path("/"))


def test_free_space_is_what_this_user_may_write(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path) <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    with pytest.raises(OSError):
        free_bytes(tmp_path / "missing")


def test_a_directory_is_synced_by_path_or_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    sync_directory(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        sync_directory(fd)
        os.fstat(fd)  # still open
    finally:
        os.close(fd)
    assert synced == [tmp_path, tmp_path]
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")


def ignore_ascii_case(name: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in name)


def ignore_canonical_form(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def ignore_compatible_form(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def ignore_other_case(name: str) -> str:
    return "".join(char if char.isascii() else char.lower() for char in name)


@pytest.mark.parametrize(
    "fold",
    [str.casefold, ignore_ascii_case, ignore_other_case, ignore_canonical_form, ignore_compatible_form],
)
def test_a_disk_that_takes_two_names_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fold: Callable[[str], str]
) -> None:
    def exists(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return fold(name) in (fold(one.name) for one in Path(folder).iterdir())

    monkeypatch.setattr("os.path.lexists", exists)
    assert not distinguishes_names(tmp_path)


def test_a_disk_that_distinguishes_all_names(tmp_path: Path) -> None:
    (tmp_path / "A").touch()
    if (tmp_path / "a").exists():
        pytest.skip("the disk of this test ignores case")
    assert distinguishes_names(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["A"]


def test_a_disk_without_such_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(*_args: object, **_options: object) -> None:
        raise OSError(84, "Invalid or incomplete multibyte or wide character")

    monkeypatch.setattr(Path, "touch", touch)
    assert not distinguishes_names(tmp_path)


@pytest.mark.parametrize(
    ("kind", "release", "can"),
    [
        ("ext4", "6.1.0-13-amd64", True),
        ("xfs", "5.8", True),
        ("btrfs", "5.7.19-generic", False),
        ("nfs4", "6.1.0", False),
        ("overlay", "6.1.0", False),
        ("ext4", "odd", False),
    ],
)
def test_a_file_system_is_synced_as_a_whole_only_where_failures_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, release: str, can: bool
) -> None:
    monkeypatch.setattr(file_systems, "file_system_type", lambda _: kind)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert file_systems.can_sync_whole(tmp_path) == can


def test_a_sync_of_a_file_system_reports_its_failure(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    file_systems.sync_file_system(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        file_systems.sync_file_system(fd)


def test_what_waits_for_the_disks_is_the_systems_own_count(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    assert file_systems.unwritten_bytes(memory) is None
    memory.write_text("MemFree:   100 kB\nDirty:      20 kB\nWriteback:   3 kB\nWritebackTmp: 9 kB\n")
    assert file_systems.unwritten_bytes(memory) == 23 * 1024


def test_a_start_of_the_computer_has_a_name(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    nameless, disk = file_systems.writing_session(tmp_path, boot)
    assert nameless == ""
    boot.write_text("6b3e-41\n")
    assert file_systems.writing_session(tmp_path, boot) == ("6b3e-41", disk)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_disk_without_hard_links_is_found_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert has_hard_links(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    assert not has_hard_links(tmp_path)
    assert not list(tmp_path.iterdir())
