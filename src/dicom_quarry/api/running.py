"""The jobs that run in this process, so that a handle can stop them without a signal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_quarry.extraction.runner import Runner

_lock = threading.Lock()
_runners: dict[Path, Runner] = {}


@contextmanager
def running(runner: Runner) -> Iterator[None]:
    """Let :func:`find_runner` find a runner while the context lasts."""
    out = runner.queries.settings.to.resolve()
    with _lock:
        _runners[out] = runner
    try:
        yield
    finally:
        with _lock:
            if _runners.get(out) is runner:
                del _runners[out]


def find_runner(out: Path) -> Runner | None:
    """Return the runner of the job in a folder, None if it does not run in this process."""
    with _lock:
        return _runners.get(out.resolve())
