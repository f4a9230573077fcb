"""Folders of instances in flight: a worker that begins removes those of dead workers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.store.incoming import open_incoming

DEAD, LIVING, OWN = "host/boot/1/10/5", "host/boot/1/11/5", "host/boot/1/12/5"


def left(incoming: Path, worker: str, *names: str) -> Path:
    folder = incoming / worker.replace("/", "~")
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"half")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_worker_that_begins_removes_the_files_of_the_dead_alone(tmp_path: Path) -> None:
    left(tmp_path, DEAD, "1.part", "2.part")
    living = left(tmp_path, LIVING, "1.part")
    with open_incoming(tmp_path, OWN, lambda worker: worker == DEAD) as own:
        assert own.parent == tmp_path
        assert own.stat().st_mode & 0o777 == 0o700
        assert names(tmp_path) == {living.name, f"{living.name}/1.part", own.name}
    assert names(tmp_path) == {living.name, f"{living.name}/1.part"}


def test_what_a_former_run_of_the_same_name_left_is_removed(tmp_path: Path) -> None:
    left(tmp_path, OWN, "1.part")
    with open_incoming(tmp_path, OWN, lambda _: False) as own:
        assert list(own.iterdir()) == []


def test_a_job_with_the_lock_removes_all_but_what_is_the_users(tmp_path: Path) -> None:
    left(tmp_path, LIVING, "1.part")
    (tmp_path / "1.part").write_bytes(b"of a version with one folder")
    (tmp_path / "mine.txt").write_text("hello")
    folder = left(tmp_path, DEAD, "1.part", "mine.txt")
    with open_incoming(tmp_path, OWN, lambda _: True) as own:
        pass
    assert names(tmp_path) == {"mine.txt", folder.name, f"{folder.name}/mine.txt"}
    assert not own.exists()


def test_where_others_may_live_files_without_a_worker_stay(tmp_path: Path) -> None:
    (tmp_path / "1.part").write_bytes(b"of a version with one folder")
    with open_incoming(tmp_path, OWN, lambda worker: worker == DEAD):
        pass
    assert names(tmp_path) == {"1.part"}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, incoming = tmp_path / "victim", tmp_path / "incoming"
    victim.mkdir()
    incoming.mkdir()
    (victim / "1.part").write_bytes(b"precious")
    (incoming / DEAD.replace("/", "~")).symlink_to(victim)
    with open_incoming(incoming, OWN, lambda _: True):
        pass
    assert names(victim) == {"1.part"}


def test_the_folder_stays_while_a_file_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_incoming(tmp_path, OWN, lambda _: False) as own:
        (own / "1.part").write_bytes(b"half")
        raise ZeroDivisionError
    assert names(tmp_path) == {own.name, f"{own.name}/1.part"}
