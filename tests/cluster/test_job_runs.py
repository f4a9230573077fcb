"""The jobs of a worker: what it cannot work on is left to the others, with a reason without identifiers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_quarry.api import workers
from dicom_quarry.cli.display.plain import PlainDisplay
from dicom_quarry.cluster import job_run, job_runs
from dicom_quarry.cluster.job_run import open_job_run
from dicom_quarry.cluster.job_runs import JobRuns
from dicom_quarry.cluster.worker_metrics import WorkerCounts
from dicom_quarry.errors import ConfigError, InputError, LedgerError, RoomUsedUp


class Run:
    """A job whose rows cannot be queried for."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def query_rows(self) -> None:
        raise self._error

    def stop(self, *, cancel: bool) -> None:
        assert not cancel

    waiting_for = ""

    def describe_command(self) -> str:
        return ""


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], tuple[JobRuns, list[int]]]:
    def make(error: Exception) -> tuple[JobRuns, list[int]]:
        opened: list[int] = []

        @contextmanager
        def open_job_run(place: Any, _: object) -> Iterator[Run]:
            opened.append(place.number)
            yield Run(error)

        row = SimpleNamespace(folder=Path("out"), name="trial", hand_overs="")
        monkeypatch.setattr(job_runs, "open_job_run", open_job_run)
        monkeypatch.setattr(job_runs, "ClusterPlace", lambda *_: SimpleNamespace(number=7, job=row))
        board = SimpleNamespace(waiting_for="")
        equipment: Any = SimpleNamespace(queries=SimpleNamespace(status_board=board), counts=WorkerCounts())
        cluster: Any = SimpleNamespace(get=lambda _: row)
        return JobRuns(cluster, equipment, lambda _: None), opened

    return make


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("DOE^JANE"), "internal error (KeyError in test_job_runs.py"),
        (
            OSError(errno.EROFS, "Read-only file system", "out/DOE-4711"),
            "job:trial: a file or folder of it cannot be used: Read-only file system",
        ),
        (LedgerError("the ledger cannot be read"), "job:trial: the ledger cannot be read"),
    ],
)
def test_what_ends_the_work_on_a_job_leaves_it_to_the_others(
    fail: Callable[[Exception], tuple[JobRuns, list[int]]], error: Exception, words: str
) -> None:
    runs, opened = fail(error)
    runs.query_rows(7)
    runs.query_rows(7)
    assert opened == [7], "not at once again"
    assert words in runs.describe_wait()
    assert "DOE" not in runs.describe_wait()


def test_a_job_whose_room_is_used_up_stays_open_and_is_named(
    fail: Callable[[Exception], tuple[JobRuns, list[int]]],
) -> None:
    runs, opened = fail(RoomUsedUp("its room of 500 GB is used up"))
    runs.query_rows(7)
    runs.query_rows(7)
    assert opened == [7]
    assert runs.describe_wait() == "job:trial: its room of 500 GB is used up"
    assert 7 in runs._open, "others of the worker's threads may be fetching a study for it"


def test_a_job_on_a_disk_without_hard_links_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_run, "has_hard_links", lambda _: False)
    place: Any = SimpleNamespace(out=tmp_path / "out", incoming=tmp_path, require_folder=lambda: None)
    equipment: Any = SimpleNamespace(root=tmp_path)
    with pytest.raises(InputError, match="has no hard links"), open_job_run(place, equipment):
        pass


def test_a_job_in_a_folder_of_another_user_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    place: Any = SimpleNamespace(out=tmp_path / "out", incoming=tmp_path)
    equipment: Any = SimpleNamespace(root=tmp_path)
    with (
        pytest.raises(InputError, match=r"may not write to .*: workers run as"),
        open_job_run(place, equipment),
    ):
        pass


def test_a_worker_is_not_started_on_a_disk_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "has_hard_links", lambda _: False)
    settings = tmp_path / "quarry.toml"
    settings.write_text(
        '[archive.main]\naddress = "PACS@127.0.0.1:104"\n[cluster]\nledger = "postgresql://q@127.0.0.1/q"\n'
    )
    with pytest.raises(ConfigError, match="has no hard links"):
        workers.make_worker(settings, tmp_path, "W1@127.0.0.1:11112", None, PlainDisplay())


def test_a_job_that_cannot_be_opened_is_left_to_others(
    fail: Callable[[Exception], tuple[JobRuns, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, opened = fail(KeyError())

    def break_down(*_: object) -> None:
        raise ValueError("DOE^JANE")

    monkeypatch.setattr(job_runs, "open_job_run", break_down)
    runs.query_rows(7)
    assert "internal error (ValueError in test_job_runs.py" in runs.describe_wait()
    assert not opened
