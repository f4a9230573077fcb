"""The jobs of a worker: what it cannot work on is left to the others, with a reason without identifiers."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_quarry.cluster import job_runs
from dicom_quarry.cluster.job_runs import JobRuns
from dicom_quarry.errors import LedgerError


class Run:
    """A job whose rows cannot be queried for."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def query_rows(self) -> None:
        raise self._error

    def stop(self, *, cancel: bool) -> None:
        assert not cancel


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], tuple[JobRuns, list[int]]]:
    def make(error: Exception) -> tuple[JobRuns, list[int]]:
        opened: list[int] = []

        @contextmanager
        def open_job_run(place: Any, _: object) -> Iterator[Run]:
            opened.append(place.number)
            yield Run(error)

        monkeypatch.setattr(job_runs, "open_job_run", open_job_run)
        monkeypatch.setattr(job_runs, "ClusterPlace", lambda *_: SimpleNamespace(number=7))
        board = SimpleNamespace(waiting_for="")
        equipment: Any = SimpleNamespace(queries=SimpleNamespace(status_board=board))
        cluster: Any = SimpleNamespace(get=lambda _: SimpleNamespace(folder=Path("out")))
        return JobRuns(cluster, equipment, lambda _: None), opened

    return make


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("DOE^JANE"), "internal error (KeyError in test_job_runs.py"),
        (OSError(errno.EROFS, "Read-only file system", "out/DOE-4711"), "job 7: Read-only file system"),
        (LedgerError("the ledger cannot be read"), "job 7: the ledger cannot be read"),
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
