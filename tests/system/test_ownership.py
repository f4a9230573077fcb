"""What another user could have written, by owner and mode; tests with real users are in tests/hostile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_quarry.system import ownership
from dicom_quarry.system.ownership import NotOwned, foreign_reason, open_own_file, require_own_file


def found(uid: int, mode: int, gid: int = 12345) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("uid", "mode", "reason"),
    [
        (1000, stat.S_IFDIR | 0o700, ""),
        (1000, stat.S_IFDIR | 0o755, ""),
        (1000, stat.S_IFDIR | 0o777, "every user"),
        (1000, stat.S_IFDIR | 0o1777, "every user"),
        (1000, stat.S_IFDIR | 0o770, "the group 12345 may write"),
        (1001, stat.S_IFDIR | 0o700, "belongs to the user 1001"),
        (0, stat.S_IFDIR | 0o700, "belongs to the user root"),
    ],
)
def test_owner_and_mode_decide(uid: int, mode: int, reason: str) -> None:
    text = foreign_reason(found(uid, mode))
    assert reason in text and bool(reason) == bool(text)


def test_a_group_of_this_user_alone_is_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    members: list[str] = []
    monkeypatch.setattr(ownership, "user_name", lambda _: "ann")
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group(("ann", "x", 12345, members)))
    assert foreign_reason(found(1000, stat.S_IFDIR | 0o775)) == ""
    members.append("bob")
    assert "the group ann may write" in foreign_reason(found(1000, stat.S_IFDIR | 0o775))


def test_settings_of_root_are_as_good_as_ours() -> None:
    assert foreign_reason(found(0, stat.S_IFREG | 0o644), root_is_trusted=True) == ""
    assert foreign_reason(found(0, stat.S_IFREG | 0o666), root_is_trusted=True)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda path: path.symlink_to("victim"), "a link"),
        (os.mkfifo, "a named pipe"),
        (lambda path: path.mkdir(), "a folder"),
    ],
)
def test_what_is_no_file_is_neither_opened_nor_accepted(
    tmp_path: Path, plant: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "lock"
    plant(path)
    with pytest.raises(NotOwned, match=f"lock is {kind}"):
        open_own_file(path, os.O_RDWR | os.O_CREAT)
    with pytest.raises(NotOwned, match=f"lock is {kind}"):
        require_own_file(path)
    assert not (tmp_path / "victim").exists()


def test_a_file_of_ours_is_opened_and_waits_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    fd = open_own_file(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    assert os.get_blocking(fd)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.close(fd)
