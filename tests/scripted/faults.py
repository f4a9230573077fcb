"""Faults of archives, each as a class; the numbers are those of the field guide's list."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dicom_quarry.demo.dimse_operations import (
    CANCELLED,
    PENDING,
    SUCCESS,
    MoveOperation,
    RetrieveOperation,
    Tally,
)
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.store_scu import NOT_SENT, AssociationFailed, StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance
from tests.scripted.archive import Answers, Fault, ScriptedArchive

TRANSIENT, PERMANENT = 2, 1  # PS3.8 9.3.4

_AVAILABILITY = 0x00080056


class Reject(Fault):
    """1. The association is refused: transient, local limit exceeded; or permanent."""

    def __init__(self, result: int = TRANSIENT, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._answer = (result, 3, 2) if result == TRANSIENT else (result, 1, 3)

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        if self.strikes():
            assoc.acse.send_reject(*self._answer)
            assoc.kill()  # returns when the refusal is sent and the connection closed


class OneAssociation(Fault):
    """1. An association is refused while there is another: with this result, source and reason."""

    def __init__(self, result: int = TRANSIENT, source: int = 3, reason: int = 2) -> None:
        super().__init__()
        self._answer = result, source, reason

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        if any(other is not assoc and other.is_alive() for other in archive.open_associations):
            assoc.acse.send_reject(*self._answer)
            assoc.kill()


class Lose(Fault):
    """2. After some sub-operations the association is aborted, or with ``cut`` the connection closed."""

    def __init__(self, after: int, *, cut: bool = False, times: int | None = None) -> None:
        super().__init__(times=times)
        self._after = after
        self._cut = cut

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        if sent == self._after and self.strikes():
            if not self._cut:
                move.assoc._abort_nonblocking()
                return
            move.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            while move.is_alive:
                archive.stopped.wait(0.005)


class Silence(Fault):
    """3. No word for some seconds when ``after`` instances are sent; 0 is before the first."""

    def __init__(self, after: int, seconds: float, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._after = after
        self._seconds = seconds

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        if sent == self._after and self.strikes():
            archive.stopped.wait(self._seconds)


class NoPending(Fault):
    """3. Pending responses are optional: none are sent (PS3.4 C.4.2.3)."""

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        return status == PENDING


class EndlessPending(Fault):
    """4. Pending responses for ever, and not one instance."""

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        if not self.strikes():
            return False
        while not archive.ended(move) and not archive.stopped.wait(0.02):
            move.respond(PENDING, Tally(1))
        if move.is_alive:
            move.respond(CANCELLED, Tally(1))
        return True


class SilentFind(Fault):
    """4. A C-FIND that is never answered."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        if self.strikes():
            archive.stopped.wait()
        yield from answers


class Offline(Fault):
    """5. InstanceAvailability is OFFLINE; moves end in Success with nothing sent until it was recalled.

    Only that of one study where it is named.
    """

    def __init__(self, *, study_uid: str = "", times: int | None = None) -> None:
        super().__init__(times=times)
        self._study_uid = study_uid

    def describe(self, elements: list[Element]) -> list[Element]:
        others = [element for element in elements if element[0] != _AVAILABILITY]
        mine = not self._study_uid or any(value == self._study_uid for _, _, value in elements)
        return [*others, (_AVAILABILITY, "CS", "OFFLINE" if mine and self._left != 0 else "ONLINE")]

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        mine = self._study_uid in ("", *move.query.values("StudyInstanceUID"))
        if not mine or not self.strikes():
            return False
        move.respond(SUCCESS, Tally(0))
        return True


class IgnoreCancel(Fault):
    """6. C-CANCEL is ignored."""

    hears_cancel = False


class MoveStatus(Fault):
    """7. A final status and nothing sent; with ``counted`` it has counters."""

    def __init__(
        self, status: int, *, level: str = "", counted: bool = True, times: int | None = None
    ) -> None:
        super().__init__(times=times)
        self._status = status
        self._level = level
        self._counted = counted

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        if (self._level and move.query.level != self._level) or not self.strikes():
            return False
        move.respond(self._status, Tally(0) if self._counted else None)
        return True


class NothingSent(Fault):
    """8. Success and nothing sent: 0 sub-operations, or with ``claimed`` all of them completed."""

    def __init__(self, *, claimed: bool = False, times: int | None = None) -> None:
        super().__init__(times=times)
        self._claimed = claimed

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        if not self.strikes():
            return False
        move.respond(SUCCESS, Tally(0, completed=len(instances) if self._claimed else 0))
        return True


class AllFailed(Fault):
    """7, 8. A status with every sub-operation failed, and nothing sent; with or without their list."""

    def __init__(self, status: int = SUCCESS, *, listed: bool = False, times: int | None = None) -> None:
        super().__init__(times=times)
        self._status = status
        self._listed = listed

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        if not self.strikes():
            return False
        uids = [instance.sop_uid for instance in instances] if self._listed else []
        move.respond(self._status, Tally(0, failed=len(instances)), failed_uids=uids)
        return True


class SomeFailed(Fault):
    """7. The first instances are counted as failed and not sent; the others are."""

    def __init__(self, count: int, *, listed: bool = True, times: int | None = None) -> None:
        super().__init__(times=times)
        self._count = count
        self._listed = listed

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        if not self.strikes():
            return False
        tally = Tally(len(instances))
        for instance in instances[: self._count]:
            tally.count(instance.sop_uid, NOT_SENT)
        with StoreSCU(address, move.destination, archive.title, instances) as store:
            archive.send(move, store, instances[self._count :], tally)
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids if self._listed else ())
        return True


class NoCounters(Fault):
    """8. Responses without counters, which is not zero."""

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        move.respond(status)
        return True


class HalfSent(Fault):
    """8. The first half is sent, counted and called a success."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return instances[: len(instances) // 2] if self.strikes() else instances


class Late(Fault):
    """9. Half of the instances come some seconds after a final response that claims them all."""

    def __init__(self, seconds: float, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._seconds = seconds

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        if not self.strikes():
            return False
        half = len(instances) // 2

        def rest() -> None:
            if not archive.stopped.wait(self._seconds):
                store(archive, move, address, instances[half:])

        store(archive, move, address, instances[:half])
        move.respond(SUCCESS, Tally(0, completed=len(instances)))
        archive.run_in_background(rest)
        return True


class SeveralAssociations(Fault):
    """10. Each instance comes on an association of its own, without Move Originator."""

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        tally = Tally(len(instances))
        for instance in instances:
            tally.count(instance.sop_uid, store(archive, move, address, [instance]))
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)
        return True


class Duplicates(Fault):
    """11. Every instance comes twice; with ``changed`` the second time with other content."""

    def __init__(self, *, changed: bool = False) -> None:
        super().__init__()
        self._changed = changed

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        again = [_described(i, "changed") if self._changed else i for i in instances]
        return [*instances, *again]


class Unrequested(Fault):
    """10. An instance of another study comes too."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        requested = {instance.study.study_uid for instance in instances}
        other = next(s for s in archive.catalogue.studies if s.study_uid not in requested)
        return [*instances, next(other.instances())]


class OtherPatient(Fault):
    """15. The instances bear another PatientID than the C-FIND answers: merged since then."""

    def __init__(self, patient_id: str) -> None:
        super().__init__()
        self._patient_id = patient_id

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [
            replace(i, study=replace(i.study, patient=replace(i.study.patient, patient_id=self._patient_id)))
            for i in instances
        ]


def _described(instance: DemoInstance, description: str) -> DemoInstance:
    return replace(instance, study=replace(instance.study, description=description))


def store(
    archive: ScriptedArchive, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]
) -> int:
    """Send on an association of its own, without Move Originator; returns the last status."""
    status = SUCCESS
    try:
        with StoreSCU(address, move.destination, archive.title, instances) as store:
            for number, instance in enumerate(instances, start=1):
                status = store.store(instance, number)
    except AssociationFailed:
        return NOT_SENT
    return status
