"""Faults in the messages of an archive, on the wire; the numbers are those of the field guide's list."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from pynetdicom.pdu_primitives import A_ABORT, A_RELEASE, P_DATA

from tests.scripted.archive import Fault, ScriptedArchive

_STATUS = struct.pack("<HHL", 0, 0x0900, 2)
_DATA_SET_TYPE = struct.pack("<HHL", 0, 0x0800, 2)
_NONE, _ANNOUNCED = struct.pack("<H", 0x0101), struct.pack("<H", 1)
_PENDING = struct.pack("<H", 0xFF00)


class _ResponseFault(Fault):
    """Changes what is sent: ``send`` sends a primitive of the upper layer."""

    def admit(self, archive: ScriptedArchive, assoc: Any) -> None:
        send = assoc.dul.send_pdu

        def send_changed(primitive: Any) -> None:
            self.send(primitive, send)

        assoc.dul.send_pdu = send_changed

    def send(self, primitive: Any, send: Callable[[Any], None]) -> None:
        send(primitive)


class EndsBehindAnswer(_ResponseFault):
    """2. The association is aborted, or with ``release`` released, right behind a final response."""

    def __init__(self, *, release: bool = False, times: int | None = None) -> None:
        super().__init__(times=times)
        self._release = release

    def send(self, primitive: Any, send: Callable[[Any], None]) -> None:
        send(primitive)
        if _is_final(primitive) and self.strikes():
            end: Any = A_RELEASE() if self._release else A_ABORT()
            if not self._release:
                end.abort_source = 0
            send(end)


class AnnouncesDatasets(_ResponseFault):
    """7. Every response announces a dataset, also where none follows."""

    def send(self, primitive: Any, send: Callable[[Any], None]) -> None:
        if isinstance(primitive, P_DATA):
            changed: list[Any] = [
                [number, data.replace(_DATA_SET_TYPE + _NONE, _DATA_SET_TYPE + _ANNOUNCED)]
                for number, data in primitive.presentation_data_value_list
            ]
            primitive.presentation_data_value_list = changed
        send(primitive)


def _is_final(primitive: Any) -> bool:
    if not isinstance(primitive, P_DATA):
        return False
    ((_, data),) = primitive.presentation_data_value_list
    status = data.partition(_STATUS)[2][:2]
    return data[0] == 3 and bool(status) and status != _PENDING
