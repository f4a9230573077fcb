"""Probes of the archives that do not answer a worker.

A study or a row of such an archive is not given out, so that no thread of the worker's jobs waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.system.shutdown import Stopped


class ArchiveProbes:
    """One thread for each archive that does not answer, until it does or the worker stops.

    ``on_refused`` is called with the name of an archive and what a person has to solve.
    """

    def __init__(self, on_refused: Callable[[str, OperatorActionRequired], None]) -> None:
        self._on_refused = on_refused
        self._threads: dict[str, threading.Thread] = {}

    def begin(self, name: str, client: ArchiveClient) -> None:
        """Probe an archive, if no thread does yet. Not for several threads at once."""
        before = self._threads.get(name)
        if before is None or not before.is_alive():
            thread = threading.Thread(
                target=self._probe, args=(name, client), name=f"probe-{name}", daemon=True
            )
            start_thread(thread)
            self._threads[name] = thread

    def _probe(self, name: str, client: ArchiveClient) -> None:
        try:
            client.circuit_breaker.wait_until_closed()
        except Stopped:
            pass
        except OperatorActionRequired as error:
            self._on_refused(name, error)
        finally:
            client.archive.release_thread()
