"""The views of jobs, read again only when a job has changed.

A look at a job costs the state of its lock and the times of three files. Its record is read when one of them
has changed; while it runs, this takes a small share of the time at most. Nothing is looked at by itself: a
page that is open does so, about once a second.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry import api
from dicom_quarry.api import JobPlace, JobView

#: Seconds between two reads of a running job's record, and the largest share of the time for them.
_INTERVAL, _MAX_SHARE = 0.8, 0.05

#: Seconds between two looks at the list of jobs.
_LIST_INTERVAL = 5.0


@dataclass(frozen=True, slots=True)
class _Read:
    signs: tuple[object, ...]
    view: JobView
    ended_at: float
    seconds: float


class JobViews:
    """The views of jobs that were read last, for all threads of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: dict[Path, _Read] = {}
        self._folders: list[JobPlace] = []
        self._listed_at = -_LIST_INTERVAL

    def folders(self, *, at_once: bool = False) -> list[JobPlace]:
        """Return this user's jobs, the latest first; ``at_once``: also those of the last seconds."""
        with self._lock:
            if at_once or time.monotonic() - self._listed_at >= _LIST_INTERVAL:
                self._folders, self._listed_at = api.latest_job_folders(), time.monotonic()
            return self._folders

    def get(self, folder: JobPlace) -> JobView:
        """Return the view of a job; the same object as before if the job has not changed.

        Raises LedgerError.
        """
        signs = folder.signs()
        with self._lock:
            known = self._reads.get(folder.out)
            if known is None or (signs != known.signs and _is_due(known, signs)):
                known = self._reads[folder.out] = _read(folder, signs)
            return known.view


def _is_due(known: _Read, signs: tuple[object, ...]) -> bool:
    """Return True if a record may be read again: at once if its job began or ended."""
    owner_changed = signs[0] != known.signs[0]
    return owner_changed or time.monotonic() - known.ended_at >= max(_INTERVAL, known.seconds / _MAX_SHARE)


def _read(folder: JobPlace, signs: tuple[object, ...]) -> _Read:
    began_at = time.monotonic()
    with api.open_job(folder) as job:
        view = api.read_job_view(job)
    ended_at = time.monotonic()
    return _Read(signs, view, ended_at, ended_at - began_at)
