"""Faults in the messages of an archive, on the wire; the numbers are those of the field guide's list."""

from __future__ import annotations

import struct
from typing import Any

from tests.peers.scripted import ABORT, RELEASE
from tests.scripted.archive import Fault, ScriptedArchive

_STATUS = struct.pack("<HHL", 0, 0x0900, 2)
_DATA_SET_TYPE = struct.pack("<HHL", 0, 0x0800, 2)
_NONE, _ANNOUNCED = struct.pack("<H", 0x0101), struct.pack("<H", 1)
_PENDING = struct.pack("<H", 0xFF00)


class EndsBehindAnswer(Fault):
    """2. The association is aborted, or with ``release`` released, in the segment of a final response."""

    def __init__(self, *, release: bool = False, times: int | None = None) -> None:
        super().__init__(times=times)
        self._end = RELEASE if release else ABORT

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        connection = assoc.dul.socket
        send = connection.send

        def send_more(data: bytes) -> None:
            send(data + self._end if _is_final(data) and self.strikes() else data)

        connection.send = send_more


class AnnouncesDatasets(Fault):
    """7. Every response announces a dataset, also where none follows."""

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        connection = assoc.dul.socket
        send = connection.send
        connection.send = lambda data: send(data.replace(_DATA_SET_TYPE + _NONE, _DATA_SET_TYPE + _ANNOUNCED))


def _is_final(pdu: bytes) -> bool:
    """Return True for a P-DATA-TF (PS3.8 9.3.5) with the whole command set of a final response."""
    status = pdu.partition(_STATUS)[2][:2]
    return pdu[:1] == b"\4" and pdu[11:12] == b"\3" and bool(status) and status != _PENDING
