"""A job in a process of its own, that says what it does at the site's ceiling; see test_host.py.

``moves``: as many threads as asked for each begin a move, and stay. ``queries``: so many, one after another.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.host_state import HostState
from dicom_quarry.scheduling.shared_state import Clock
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown

_speaking = threading.Lock()


def say(*words: object) -> None:
    with _speaking:
        print(*words, flush=True)


class Telling(Shutdown):
    """Says that it waits."""

    def wait_unless_stopping(self, seconds: float) -> None:
        say("waits", threading.current_thread().name)
        super().wait_unless_stopping(seconds)


class LastTick:
    """Remembers the time at which something was granted: that of the last look at the clock."""

    value = 0.0

    def __call__(self) -> float:
        self.value = time.monotonic()
        return self.value


def _move(throttle: ArchiveThrottle, name: str) -> None:
    with throttle.acquire_retrieval():
        say("in", name)
        threading.Event().wait()


def _moves(throttle: ArchiveThrottle, count: int) -> None:
    threads = [
        threading.Thread(target=_move, args=(throttle, str(one)), name=str(one)) for one in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _queries(throttle: ArchiveThrottle, tick: LastTick, count: int) -> Iterable[float]:
    for _ in range(count):
        throttle.acquire_query()
        yield tick.value


def main() -> None:
    what, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    site = {"all": Limits(parallel=2, queries_per_second=50)}
    tick = LastTick()
    throttle = ArchiveThrottle(
        Limits(),
        site,
        parallel=16,
        shared_state=HostState(folder, clock=Clock(monotonic=tick)),
        shutdown=Telling(),
        status_board=StatusBoard(),
    )
    if what == "moves":
        _moves(throttle, count)
    else:
        for at in _queries(throttle, tick, count):
            say("granted", at)


if __name__ == "__main__":
    main()
