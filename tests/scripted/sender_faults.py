"""Faults of archives in what they send beside the instances: commands of C-STORE, negotiation, C-ECHO."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dicom_quarry.demo.dimse_operations import MoveOperation, Tally
from dicom_quarry.demo.store_scu import StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance
from dicom_quarry.wire.dimse import VERIFICATION
from tests.scripted.archive import Fault, ScriptedArchive


class SentBy(Fault):
    """33. Instances are sent by this Storage SCU."""

    def __init__(self, scu: type[StoreSCU]) -> None:
        super().__init__()
        self._scu = scu

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        tally = Tally(len(instances))
        with self._scu(address, move.destination, archive.title, instances) as store:
            archive.send(move, store, instances, tally)
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)
        return True


class EmptyNumbers(StoreSCU):
    """A sender whose Priority and Move Originator have no value."""

    def _encode_command(
        self, instance: DemoInstance, message_id: int, originator: tuple[str, int] | None
    ) -> bytes:
        def element(number: int, value: bytes) -> bytes:
            return struct.pack("<HHL", 0, number, len(value)) + value

        return b"".join(
            [
                element(0x0002, instance.sop_class.encode() + b"\0" * (len(instance.sop_class) % 2)),
                element(0x0100, b"\1\0"),
                element(0x0110, struct.pack("<H", message_id)),
                element(0x0700, b""),
                element(0x0800, b"\1\0"),
                element(0x1000, instance.sop_uid.encode() + b"\0" * (len(instance.sop_uid) % 2)),
                element(0x1030, b""),
                element(0x1031, b""),
            ]
        )


class LongPdus(StoreSCU):
    """A sender whose PDUs are a little longer than the receiver allows, as it does not count the headers."""

    def _encode_pdus(
        self, context: int, pieces: Iterable[bytes | memoryview], control: int
    ) -> Iterator[bytes]:
        self._max_fragment += 12
        try:
            yield from super()._encode_pdus(context, pieces, control)
        finally:
            self._max_fragment -= 12


class NoEcho(Fault):
    """33. C-ECHO is not offered, while queries and retrievals are."""

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        for context in assoc.requestor.primitive.presentation_context_definition_list:
            if context.abstract_syntax == VERIFICATION:
                context.abstract_syntax = "1.2.840.10008.1.9"


class FromElsewhere(StoreSCU):
    """A sender at another address than the archive's."""

    source_address = "127.0.0.2", 0


class ToAnotherTitle(StoreSCU):
    """A sender that calls an AE title that is not ours."""

    def __init__(
        self, address: tuple[str, int], called: str, calling: str, instances: Iterable[DemoInstance]
    ) -> None:
        super().__init__(address, f"{called}2", calling, instances)


class BreaksProtocol(StoreSCU):
    """A sender whose message is no DIMSE message: its presentation context was not negotiated."""

    def store(
        self, instance: DemoInstance, message_id: int, originator: tuple[str, int] | None = None
    ) -> int:
        self._socket.sendall(b"\4\0\0\0\0\7\0\0\0\3\xf9\3x")
        return super().store(instance, message_id, originator)
