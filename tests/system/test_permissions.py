"""Who may read what is written: modes that are refused, groups that cannot be given."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

import pytest

from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.system.permissions import PRIVATE, Permissions, make_permissions


def other_group() -> grp.struct_group:
    """One that this process is not in."""
    mine = {os.getegid(), *os.getgroups()}
    return next(one for one in grp.getgrall() if one.gr_gid not in mine)


@pytest.mark.parametrize(
    ("mode", "group", "found"),
    [
        (None, None, PRIVATE),
        ("0640", None, Permissions(0o640)),
        ("644", None, Permissions(0o644)),
        ("0660", None, Permissions(0o660)),
    ],
)
def test_modes_that_are_taken(mode: str | None, group: str | None, found: Permissions) -> None:
    assert make_permissions(mode, group) == found


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("0666", "every user of this computer could change"),
        ("0662", "every user of this computer could change"),
        ("0440", "the owner must"),
        ("0040", "the owner must"),
        ("0750", "no x bits"),
        ("0o640", "octal mode"),
        ("rw-r-----", "octal mode"),
        ("2640", "octal mode"),
        ("0680", "octal mode"),
    ],
)
def test_modes_that_are_refused(tmp_path: Path, mode: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_permissions(mode, None)
    with pytest.raises(ConfigError, match=f"file-mode: .*{message}"):
        load_settings(None, {"from": "PACS@h:104", "to": str(tmp_path), "file_mode": mode})


def test_folders_can_be_listed_by_who_may_read_the_files_in_them() -> None:
    assert PRIVATE.folder_mode == 0o700
    assert Permissions(0o640).folder_mode == 0o750
    assert Permissions(0o660, 5).folder_mode == 0o2770
    assert Permissions(0o644, 5).folder_mode == 0o2755


def test_a_group_by_name_or_number_may_read(tmp_path: Path) -> None:
    mine = grp.getgrgid(os.getegid())
    assert (
        make_permissions(None, mine.gr_name)
        == make_permissions(None, str(mine.gr_gid))
        == Permissions(0o640, mine.gr_gid)
    )
    settings: Settings = load_settings(None, {"from": "P@h:1", "to": str(tmp_path), "group": mine.gr_name})
    assert settings.permissions == Permissions(0o640, mine.gr_gid)
    with pytest.raises(ConfigError, match=r"there is no group radiologists-of-mars .*getent group"):
        make_permissions(None, "radiologists-of-mars")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may become somebody else")
def test_a_group_that_the_user_is_not_in_is_refused() -> None:
    name, reads, writes = other_group().gr_name, *os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            make_permissions(None, name)
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writes, str(error).encode())
        os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    message = os.read(reads, 1000).decode()
    os.close(reads)
    assert f"you are not in the group {name}" in message and "log in again" in message


def test_a_folder_is_opened_and_never_narrowed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o701)
    fd = os.open(folder, os.O_RDONLY)
    Permissions(0o640, os.getegid()).apply_to_folder(fd)
    os.close(fd)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2751
