"""Faults of archives in the instances themselves; the numbers are those of the field guide's list."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dicom_quarry.demo.dimse_operations import UNABLE, GetOperation, MoveOperation, Tally
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.store_scu import NOT_SENT, AssociationFailed, StoreSCU
from dicom_quarry.demo.synthetic_studies import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    DemoInstance,
    DemoStudy,
    generate_studies,
)
from tests.scripted.archive import Answers, Fault, ScriptedArchive

OUT_OF_RESOURCES = 0xA700

#: More studies than Quarry retrieves without result.
MORE = tuple(generate_studies(4, seed=8, images=2))


class Of(Fault):
    """Another fault, for the C-MOVEs of one study alone."""

    def __init__(self, study: DemoStudy, fault: Fault) -> None:
        super().__init__()
        self._study_uid = study.study_uid
        self._fault = fault

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        mine = self._study_uid in move.query.values("StudyInstanceUID")
        return mine and self._fault.move(archive, move)

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        mine = self._study_uid in move.query.values("StudyInstanceUID")
        return mine and self._fault.deliver(archive, move, address, instances)


class Never(Fault):
    """7. The first instances of a study are counted as failed whenever they are requested (B000)."""

    def __init__(self, study: DemoStudy, count: int, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._never = {i.sop_uid for i in list(study.instances())[:count]}

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        good = [instance for instance in instances if instance.sop_uid not in self._never]
        if len(good) == len(instances) or not self.strikes():
            return False
        tally = Tally(len(instances))
        for instance in instances:
            if instance.sop_uid in self._never:
                tally.count(instance.sop_uid, NOT_SENT)
        if good:
            with StoreSCU(address, move.destination, archive.title, good) as store:
                archive.send(move, store, good, tally)
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)
        return True


class CannotSend(Fault):
    """7. A C-MOVE that includes one of these instances ends with ``status``; None aborts the association.

    That is before anything was sent, or with ``midway`` when the turn comes to it. ``counted``: the final
    response has counters.
    """

    def __init__(
        self,
        instances: Iterable[DemoInstance],
        status: int | None = 0xC000,
        *,
        midway: bool = False,
        counted: bool = True,
    ) -> None:
        super().__init__()
        self._bad = {instance.sop_uid for instance in instances}
        self._status = status
        self._midway = midway
        self._counted = counted

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        good = list(itertools.takewhile(lambda one: one.sop_uid not in self._bad, instances))
        if len(good) == len(instances):
            return False
        tally = Tally(len(instances))
        if good and self._midway:
            with StoreSCU(address, move.destination, archive.title, good) as store:
                archive.send(move, store, good, tally)
        if self._status is None:
            move.assoc._abort_nonblocking()
        elif move.is_alive:
            move.respond(self._status, tally if self._counted else None)
        return True


class RefusedClass(Fault):
    """20. The contexts of a SOP class are refused; ``status`` ends each C-GET that includes it."""

    def __init__(self, sop_class: str, status: int | None = None) -> None:
        super().__init__()
        self._sop_class = sop_class
        self._status = status

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        known = assoc.acceptor.supported_contexts
        assoc.acceptor.supported_contexts = [c for c in known if c.abstract_syntax != self._sop_class]

    def get(self, archive: ScriptedArchive, get: GetOperation) -> bool:
        chosen = archive.catalogue.select(get.query)
        if self._status is None or all(one.sop_class != self._sop_class for one in chosen):
            return False
        get.respond(self._status, Tally(len(chosen)))
        return True


class Reencoded(Fault):
    """11. Every instance comes twice, the second time in the other little endian transfer syntax."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [*instances, *map(_reencoded, instances)]


class ListedTwice(Fault):
    """11. The first instance of a study is listed in every series of it."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        if query.level != "IMAGE":
            return answers
        return self._more(archive, query, answers)

    def _more(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        [study] = archive.catalogue.candidates(query)
        first = next(study.instances())
        answers = list(answers)  # type: ignore[assignment]
        for status, record in answers:
            if record is None and first.series.series_uid not in query.values("SeriesInstanceUID"):
                named = {"SOPInstanceUID": first.sop_uid, "SOPClassUID": first.sop_class}
                yield 0xFF00, {**dict.fromkeys(query.keys, ""), **named}
            yield status, record


class OtherAccession(Fault):
    """15. The instances bear another AccessionNumber than the C-FIND answers."""

    def __init__(self, accession: str) -> None:
        super().__init__()
        self._accession = accession

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [replace(i, study=replace(i.study, accession=self._accession)) for i in instances]


class OtherStudy(Fault):
    """15. The instances bear another Study Instance UID than the C-FIND answers.

    Their own UIDs are right, unless they are ``renamed``, too.
    """

    def __init__(self, *, renamed: bool = False) -> None:
        super().__init__()
        self._renamed = renamed

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [self._change(one) for one in instances]

    def _change(self, instance: DemoInstance) -> DemoInstance:
        study, series = instance.study, instance.series
        if self._renamed:
            series = replace(series, series_uid=f"{series.series_uid[:-3]}.9")
        return replace(instance, study=replace(study, study_uid=f"{study.study_uid[:-3]}.9"), series=series)


class SeveralPatients(Fault):
    """15. The first instance of every C-MOVE bears another PatientID than the others."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        first, *others = instances
        patient = replace(first.study.patient, patient_id="SOMEBODY")
        return [replace(first, study=replace(first.study, patient=patient)), *others]


class Spoiled(Fault):
    """24. The dataset of the first instance of a series is ``change``d on its way."""

    def __init__(self, change: Callable[[bytes], bytes], *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._change = change

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        if all(instance.number != 1 for instance in instances) or not self.strikes():
            return False
        change, tally = self._change, Tally(len(instances))

        class Spoiling(StoreSCU):
            spoils = False

            def store(
                self, instance: DemoInstance, message_id: int, originator: tuple[str, int] | None = None
            ) -> int:
                self.spoils = instance.number == 1
                return super().store(instance, message_id, originator)

            def _encode_pdus(
                self, context: int, pieces: Iterable[bytes | memoryview], control: int
            ) -> Iterator[bytes]:
                if self.spoils and control == 0:
                    pieces = [change(b"".join(pieces))]
                return super()._encode_pdus(context, pieces, control)

        with Spoiling(address, move.destination, archive.title, instances) as store:
            archive.send(move, store, instances, tally)
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)
        return True


class Overloaded(Fault):
    """26. Only one C-MOVE at a time: another one is refused (A700), or with ``dies`` all are aborted."""

    def __init__(self, *, dies: bool = False) -> None:
        super().__init__()
        self._dies = dies
        self._busy: list[MoveOperation] = []
        self._changes = threading.Lock()

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        with self._changes:
            self._busy.append(move)
            alone = len(self._busy) == 1
            if not alone and self._dies:
                for one in self._busy:
                    one.assoc._abort_nonblocking()
        try:
            if not alone and not self._dies:
                move.respond(OUT_OF_RESOURCES, Tally(0))
            elif alone or not self._dies:
                archive.stopped.wait(_WORK)
                _send(archive, move, address, instances)
        finally:
            with self._changes:
                self._busy.remove(move)
        return True


class Particular(Fault):
    """27. Associations with an asynchronous operations window, or without a PDU maximum, are dropped.

    Its own PDU maximum is 0, which means that there is none (PS3.8 D.1).
    """

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        assoc.acceptor.maximum_length = 0
        asynchronous = assoc.requestor.asynchronous_operations != (1, 1)
        if asynchronous or not assoc.requestor.maximum_length:
            assoc.acse.send_abort(0x02)
            assoc.kill()


class Elsewhere(Fault):
    """28. Instances come from another address than that of the archive."""

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        class FromElsewhere(StoreSCU):
            source_address = ("127.0.0.9", 0)

        try:
            _send(archive, move, address, instances, FromElsewhere)
        except AssociationFailed:
            move.respond(UNABLE, Tally(0, failed=len(instances)))
        return True


#: How long a C-MOVE of an archive takes that does one at a time, in seconds.
_WORK = 0.05


def _send(
    archive: ScriptedArchive,
    move: MoveOperation,
    address: tuple[str, int],
    instances: Sequence[DemoInstance],
    sender: type[StoreSCU] = StoreSCU,
) -> None:
    tally = Tally(len(instances))
    with sender(address, move.destination, archive.title, instances) as store:
        archive.send(move, store, instances, tally)
    if move.is_alive:
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)


def _reencoded(instance: DemoInstance) -> DemoInstance:
    kind = instance.series.profile
    other = EXPLICIT_LITTLE if kind.syntax == IMPLICIT_LITTLE else IMPLICIT_LITTLE
    series = replace(instance.series, profile=replace(kind, syntax=other))
    return replace(instance, series=series)
