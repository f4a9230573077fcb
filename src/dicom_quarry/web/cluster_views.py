"""The database of ./quarry.toml, read for all pages that are open, a small share of the time at most."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicom_quarry import api
from dicom_quarry.api import ClusterView
from dicom_quarry.errors import QuarryError

#: Seconds between two reads, and the largest share of the time for them.
_INTERVAL, _MAX_SHARE = 1.0, 0.05


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """The last view of the database, None before the first; and why, and since when, it is the last."""

    view: ClusterView | None = None
    problem: str = ""
    away_since: datetime | None = None


class ClusterViews:
    """The last look at the database, for all threads of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._look = ClusterLook()
        self._next_at = 0.0

    def look(self) -> ClusterLook:
        """Return the present look; while another thread reads, or it is too early, the last one."""
        is_first = self._look == ClusterLook()
        if not self._lock.acquire(blocking=is_first):
            return self._look
        try:
            if time.monotonic() >= self._next_at:
                began_at = time.monotonic()
                self._look = _read(self._look)
                ended_at = time.monotonic()
                self._next_at = ended_at + max(_INTERVAL, (ended_at - began_at) / _MAX_SHARE)
            return self._look
        finally:
            self._lock.release()


def _read(last: ClusterLook) -> ClusterLook:
    try:
        return ClusterLook(api.read_cluster_status())
    except QuarryError as error:
        return replace(last, problem=str(error), away_since=last.away_since or datetime.now(UTC))
