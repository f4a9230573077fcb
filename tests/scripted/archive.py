"""The demo archive with faults switched on; see :mod:`tests.scripted.faults` for what it can do wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_quarry.demo.dimse_operations import UNABLE, Move, Retrieval, Tally
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import Query, Record
from dicom_quarry.demo.store_scu import StoreSCU, Unwilling
from dicom_quarry.demo.synthetic_studies import Instance, Study
from tests.scripted.fault_schedule import Turns

Answers = Iterator[tuple[int, Record | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that the archive was asked: ``kind`` is associate, find or move."""

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

    def ask(self, query: Query) -> Query:
        """The C-FIND as the archive understands it."""
        return query

    def find(self, archive: ScriptedArchive, query: Query, answers: Answers) -> Answers:
        """The answers that are sent, made of the right ones."""
        return answers

    def describe(self, elements: list[Element]) -> list[Element]:
        """The identifier of a C-FIND response, made of the right one."""
        return elements

    def move(self, archive: ScriptedArchive, move: Move) -> bool:
        """Answer a C-MOVE; False leaves it to the others."""
        return False

    def choose(self, archive: ScriptedArchive, instances: Sequence[Instance]) -> Sequence[Instance]:
        """The instances that are sent, made of the right ones."""
        return instances

    def deliver(
        self, archive: ScriptedArchive, move: Move, address: tuple[str, int], instances: Sequence[Instance]
    ) -> bool:
        """Send the instances and answer the C-MOVE; False leaves it to the others."""
        return False

    def between(self, archive: ScriptedArchive, move: Retrieval, sent: int) -> None:
        """Before each sub-operation, ``sent`` of them being done, and after the last."""

    def respond(self, move: Retrieval, status: int, tally: Tally) -> bool:
        """Send a pending or the final response; False leaves it to the others."""
        return False


class ScriptedArchive(DemoArchive):
    """An archive whose ``faults`` are asked in their order; ``log`` is all that it was asked."""

    def __init__(
        self,
        studies: Iterable[Study],
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
        self._errands: list[threading.Thread] = []

    def stop(self) -> None:
        super().stop()  # first: what waits for the event must find its association gone
        self.stopped.set()
        for errand in self._errands:
            errand.join(10)

    def requests(self, kind: str, level: str = "") -> list[Seen]:
        """What was asked of this kind, and of this level where one is given."""
        return [seen for seen in self.log if seen.kind == kind and level in ("", seen.level)]

    def errand(self, work: Callable[[], None]) -> None:
        """Do something in a thread that outlives the request; it is waited for at the end."""
        thread = threading.Thread(target=work, name="scripted-errand")
        self._errands.append(thread)
        thread.start()

    def admit(self, assoc: Any) -> None:
        self.log.append(Seen("associate"))
        for fault in self.faults:
            fault.admit(self, assoc)

    def seen(self, kind: str, query: Query) -> None:
        super().seen(kind, query)
        uids = next(filter(None, map(query.values, _UIDS)), ())
        self.log.append(Seen(kind, query.level, uids, dict(query.keys)))

    def find(self, query: Query, cancelled: Callable[[], bool]) -> Answers:
        for fault in self.faults:
            query = fault.ask(query)
        answers: Answers = super().find(query, cancelled)
        for fault in self.faults:
            answers = fault.find(self, query, answers)
        return answers

    def describe(self, record: Record) -> list[Element]:
        elements = super().describe(record)
        for fault in self.faults:
            elements = fault.describe(elements)
        return elements

    def move(self, move: Move) -> None:
        if not any(fault.move(self, move) for fault in self.faults):
            super().move(move)

    def deliver(self, move: Move, address: tuple[str, int], instances: Sequence[Instance]) -> None:
        for fault in self.faults:
            instances = fault.choose(self, instances)
        try:
            if not any(fault.deliver(self, move, address, instances) for fault in self.faults):
                super().deliver(move, address, instances)
        except Unwilling:
            if move.alive:
                move.respond(UNABLE, Tally(0, failed=len(instances)))

    def send(self, move: Retrieval, store: StoreSCU, instances: Sequence[Instance], tally: Tally) -> None:
        super().send(move, store, instances, tally)
        if not tally.remaining:
            for fault in self.faults:
                fault.between(self, move, len(instances))

    def proceed(self, move: Retrieval, sent: int) -> bool:
        for fault in self.faults:
            fault.between(self, move, sent)
        return not self.ended(move)

    def ended(self, move: Retrieval) -> bool:
        """The peer has gone, or cancelled where that is heard."""
        return not move.alive or (move.cancelled and all(fault.hears_cancel for fault in self.faults))

    def respond(self, move: Retrieval, status: int, tally: Tally) -> None:
        if not any(fault.respond(move, status, tally) for fault in self.faults):
            super().respond(move, status, tally)

    def _between(self, move: Retrieval, sent: int) -> None:
        for fault in self.faults:
            fault.between(self, move, sent)


#: The unique keys, the most precise one first.
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
