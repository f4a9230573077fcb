"""The demo archive with faults switched on; see :mod:`tests.scripted.faults` for what it can do wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_quarry.demo.dimse_operations import UNABLE, GetOperation, MoveOperation, RetrieveOperation, Tally
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import QueryIdentifier, Record
from dicom_quarry.demo.store_scu import AssociationFailed, StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy
from tests.scripted.fault_schedule import Turns

Answers = Iterator[tuple[int, Record | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request to the archive: ``kind`` is associate, find or move."""

    kind: str
    level: str = ""
    uids: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.monotonic)


class Fault(Turns):
    """One thing that goes wrong; the hooks of this base class change nothing.

    Hooks run in threads of the archive; where one waits, it waits for ``archive.stopped``.
    """

    hears_cancel = True

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        """At an association request, before it is answered."""

    def interpret(self, query: QueryIdentifier) -> QueryIdentifier:
        """Return the C-FIND as the archive understands it."""
        return query

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        """The answers that are sent, made of the right ones."""
        return answers

    def describe(self, elements: list[Element]) -> list[Element]:
        """The identifier of a C-FIND response, made of the right one."""
        return elements

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        """Answer a C-MOVE; False leaves it to the others."""
        return False

    def get(self, archive: ScriptedArchive, get: GetOperation) -> bool:
        """Answer a C-GET; False leaves it to the others."""
        return False

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        """The instances that are sent, made of the right ones."""
        return instances

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        """Send the instances and answer the C-MOVE; False leaves it to the others."""
        return False

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        """Before each sub-operation, ``sent`` of them being done, and after the last."""

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        """Send a pending or the final response; False leaves it to the others."""
        return False


class ScriptedArchive(DemoArchive):
    """Archive whose ``faults`` act in their order; ``log`` are all requests that came."""

    def __init__(
        self,
        studies: Iterable[DemoStudy],
        faults: Iterable[Fault] = (),
        *,
        title: str = "SCRIPTED",
        port: int = 0,
        destinations: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        super().__init__(studies, title=title, port=port, destinations=destinations)
        self.faults = list(faults)
        self.log: list[Seen] = []
        self.stopped = threading.Event()
        self._background: list[threading.Thread] = []

    def stop(self) -> None:
        super().stop()  # first: what waits for the event must find its association gone
        self.stopped.set()
        for thread in self._background:
            thread.join(10)

    def requests(self, kind: str, level: str = "") -> list[Seen]:
        """Return the requests of this kind, and of this level if one is given."""
        return [seen for seen in self.log if seen.kind == kind and level in ("", seen.level)]

    @property
    def open_associations(self) -> list[Any]:
        """Every association whose thread has not ended."""
        return [] if self._server is None else list(self._server.active_associations)

    def run_in_background(self, work: Callable[[], None]) -> None:
        """Run work in a thread that outlives the request; stop() waits for it."""
        thread = threading.Thread(target=work, name="scripted-background")
        self._background.append(thread)
        thread.start()

    def on_association_request(self, assoc: Any) -> None:
        self.log.append(Seen("associate"))
        for fault in self.faults:
            fault.admit(self, assoc)

    def on_request(self, kind: str, query: QueryIdentifier) -> None:
        super().on_request(kind, query)
        uids = next(filter(None, map(query.values, _UIDS)), ())
        self.log.append(Seen(kind, query.level, uids, dict(query.keys)))

    def find(self, query: QueryIdentifier, cancelled: Callable[[], bool]) -> Answers:
        for fault in self.faults:
            query = fault.interpret(query)
        answers: Answers = super().find(query, cancelled)
        for fault in self.faults:
            answers = fault.find(self, query, answers)
        return answers

    def describe(self, record: Record) -> list[Element]:
        elements = super().describe(record)
        for fault in self.faults:
            elements = fault.describe(elements)
        return elements

    def move(self, move: MoveOperation) -> None:
        if not any(fault.move(self, move) for fault in self.faults):
            super().move(move)

    def get(self, get: GetOperation) -> None:
        if not any(fault.get(self, get) for fault in self.faults):
            super().get(get)

    def deliver(
        self, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]
    ) -> None:
        for fault in self.faults:
            instances = fault.choose(self, instances)
        try:
            if not any(fault.deliver(self, move, address, instances) for fault in self.faults):
                super().deliver(move, address, instances)
        except AssociationFailed:
            if move.is_alive:
                move.respond(UNABLE, Tally(0, failed=len(instances)))

    def send(
        self, operation: RetrieveOperation, store: StoreSCU, instances: Sequence[DemoInstance], tally: Tally
    ) -> None:
        super().send(operation, store, instances, tally)
        if not tally.remaining:
            for fault in self.faults:
                fault.between(self, operation, len(instances))

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        for fault in self.faults:
            fault.between(self, operation, sent)
        return not self.ended(operation)

    def ended(self, move: RetrieveOperation) -> bool:
        """Return True if the peer has gone, or cancelled, unless C-CANCEL is ignored."""
        return not move.is_alive or (move.cancelled and all(fault.hears_cancel for fault in self.faults))

    def respond(self, operation: RetrieveOperation, status: int, tally: Tally) -> None:
        if not any(fault.respond(operation, status, tally) for fault in self.faults):
            super().respond(operation, status, tally)

    def _between(self, move: RetrieveOperation, sent: int) -> None:
        for fault in self.faults:
            fault.between(self, move, sent)


#: The unique keys, the most precise one first.
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
