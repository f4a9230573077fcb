"""A demo archive that stops in the middle of a move until the test lets it go on."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from dicom_quarry.demo.dimse_operations import RetrieveOperation
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.model import AE


class GatedArchive(DemoArchive):
    """Sends ``hold_after`` instances, then holds until :meth:`open`; ``held`` is set while it does.

    ``asked`` are the C-MOVE and C-GET requests, ``associations`` counts whoever called.
    """

    def __init__(self, studies: Iterable[DemoStudy], *, title: str = "DEMO") -> None:
        super().__init__(studies, title=title)
        self.hold_after: int | None = None
        self.held = threading.Event()
        self.associations = 0
        self.asked: list[QueryIdentifier] = []
        self._gate = threading.Event()
        self._sent = 0

    @property
    def ae(self) -> AE:
        return AE(self.title, self.host, self.port)

    def open(self) -> None:
        """Go on, and hold no more."""
        self.hold_after = None
        self._gate.set()

    def hold_again(self, more: int = 1) -> None:
        """Hold once more after so many further instances."""
        self.held.clear()
        self._gate.clear()
        self.hold_after = self._sent + more

    def stop(self) -> None:
        self.open()
        super().stop()

    def on_association_request(self, assoc: Any) -> None:
        self.associations += 1

    def on_request(self, kind: str, query: QueryIdentifier) -> None:
        super().on_request(kind, query)
        if kind != "find":
            self.asked.append(query)

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        if self.hold_after is not None and self._sent >= self.hold_after:
            self.held.set()
            # C-CANCEL is heard meanwhile.
            while not (self._gate.wait(0.02) or operation.cancelled or not operation.is_alive):
                pass
        self._sent += 1
        return super().should_continue(operation, sent)
