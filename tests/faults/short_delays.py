"""Quarry in a hurry: the pauses of its policy a hundred times shorter, and all else as it is.

``python -m tests.faults.short_delays extract ...`` is the command with these pauses, in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dicom_quarry.archive.dicomweb import connection, wado
from dicom_quarry.archive.dimse import archive, associations, find, retrieval
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.extraction import engine, job_setup, retrieval_round, retry_policy
from dicom_quarry.scheduling import circuit_breaker, disk_space
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.system import backoff

SCALE = 0.01

_backoff = backoff.backoff


def _sooner(strikes: int, chance: float, *, initial: float = 5.0, maximum: float = 600.0) -> float:
    return _backoff(strikes, chance, initial=initial * SCALE, maximum=maximum * SCALE)


def hasten(change: Callable[[object, str, object], None]) -> None:
    """Shorten the pauses; ``change`` is setattr, or a monkeypatch's."""
    for module in (backoff, retry_policy, circuit_breaker):
        change(module, "backoff", _sooner)
    change(retry_policy, "_RECALL_PAUSE", 20.0)
    change(retrieval, "_TICK", 0.05)
    for module in (connection, wado):
        change(module, "TICK", 0.05)
    change(retrieval_round, "_NOTHING_SENT_WAIT", 0.1)
    change(job_setup, "DiskSpaceMonitor", partial(DiskSpaceMonitor, poll_interval=0.02))
    change(disk_space, "_RETRY_SECONDS", 0.5)
    change(engine, "POLL_INTERVAL", 0.05)
    # An archive that does not heed a cancel is left after half a second.
    change(associations, "Timeouts", partial(Timeouts, cancel=0.5))
    change(find, "CANCEL_TIMEOUT", 0.5)
    # The scripted archive gives some hundred answers a second.
    change(archive, "DimseArchive", partial(DimseArchive, max_studies=40))


if __name__ == "__main__":
    from dicom_quarry.cli.main import main

    hasten(setattr)
    main()
