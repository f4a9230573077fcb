"""Whether a job needs a receiver, and what has come that way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_quarry.config.settings import Settings
from dicom_quarry.model import Sink
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.scheduling.port_queue import PortQueue


@contextmanager
def run_receiver_if_needed(
    settings: Settings, sink: Sink, report: Callable[[str], None], port_queue: PortQueue
) -> Iterator[Callable[[], ReceiverStats]]:
    """Receives for as long as the job runs; gives what has come that way so far.

    No port is taken where no archive sends to it. ``say`` is told of senders refused. Raises StartError, and
    Stopped if the job is stopped while it queues for the port.
    """
    archives = [archive for archive in settings.archives if archive.needs_receiver]
    if not archives:
        yield ReceiverStats
        return
    # Imported here: over DICOMweb a job does without DICOM's own protocol.
    from dicom_quarry.extraction.storage_scp import run_receiver

    with run_receiver(settings, archives, sink, report, port_queue) as receiver:
        yield lambda: receiver.stats
