"""Whether a job needs a receiver, and what has come that way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_quarry.config.settings import Settings
from dicom_quarry.model import Sink
from dicom_quarry.receiver.stats import Stats
from dicom_quarry.scheduling.port_queue import Berth


@contextmanager
def reception(
    settings: Settings, sink: Sink, say: Callable[[str], None], berth: Berth
) -> Iterator[Callable[[], Stats]]:
    """Receives for as long as the job runs; gives what has come that way so far.

    No port is taken where no archive sends to it. ``say`` is told of senders refused. Raises StartError, and
    Stopped if the job is stopped while it queues for the port.
    """
    archives = [archive for archive in settings.archives if archive.sends]
    if not archives:
        yield Stats
        return
    # Imported here: over DICOMweb a job does without DICOM's own protocol.
    from dicom_quarry.extraction.storage_scp import receiving

    with receiving(settings, archives, sink, say, berth) as receiver:
        yield lambda: receiver.stats
