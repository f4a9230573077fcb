"""Requests that the archive is serving, and their responses."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.uid import UID
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import P_DATA

from dicom_quarry.demo.encoding import Element, encode, encode_command_set
from dicom_quarry.demo.query_matching import QueryIdentifier, Record

SUCCESS, PENDING, CANCELLED, WARNING = 0x0000, 0xFF00, 0xFE00, 0xB000
UNABLE, DESTINATION_UNKNOWN, BAD_IDENTIFIER = 0xA702, 0xA801, 0xA900

_HAS_DATASET, _NO_DATASET = 0x0001, 0x0101  # Command Data Set Type, PS3.7 E.1


@dataclass(slots=True)
class Tally:
    """Sub-operation counters, and the instances that failed."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, sop_uid: str, status: int) -> None:
        """Count one C-STORE by its status: B000 to BFFF are warnings (PS3.4 B.2.3)."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif 0xB000 <= status <= 0xBFFF:
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(sop_uid)

    @property
    def final_status(self) -> int:
        """The final status when everything was tried (PS3.4 C.4.2.1.5)."""
        if self.failed and not self.completed and not self.warning:
            return UNABLE
        return WARNING if self.failed or self.warning else SUCCESS


class DimseOperation:
    """A request that is being served: its association, its keys, and its cancellation."""

    def __init__(self, assoc: Any, request: Any, context_id: int) -> None:
        self.assoc = assoc
        self.message_id: int = request.MessageID
        self.sop_class = str(request.AffectedSOPClassUID)
        self._context_id = context_id
        self._syntax = UID(assoc._accepted_cx[context_id].transfer_syntax[0])
        self.query = parse_identifier(
            decode(request.Identifier, self._syntax.is_implicit_VR, self._syntax.is_little_endian)
        )

    @property
    def requestor_title(self) -> str:
        """The AE title of the peer."""
        return str(self.assoc.requestor.ae_title).strip()

    @property
    def cancelled(self) -> bool:
        """True if the peer has sent a C-CANCEL (PS3.7 9.3.2.3)."""
        return self.message_id in self.assoc.dimse.cancel_req

    @property
    def is_alive(self) -> bool:
        """True while the association is open."""
        return self.assoc.dul.is_alive() and not self.assoc.acse.is_aborted() and not self.assoc.is_aborted

    def _send(
        self,
        command_field: int,
        status: int,
        counters: Iterable[Element] = (),
        identifier: Sequence[Element] = (),
    ) -> None:
        """Send a response (PS3.7 9.3); pynetdicom's own codec for it takes a millisecond."""
        command = encode_command_set(
            [
                (0x00000002, "UI", self.sop_class),
                (0x00000100, "US", command_field),
                (0x00000120, "US", self.message_id),
                (0x00000800, "US", _HAS_DATASET if identifier else _NO_DATASET),
                (0x00000900, "US", status),
                *counters,
            ]
        )
        self._transfer(command, 0x01)
        if identifier:
            explicit, little = not self._syntax.is_implicit_VR, self._syntax.is_little_endian
            self._transfer(encode(identifier, explicit=explicit, little=little), 0x00)

    def _transfer(self, message: bytes, control: int) -> None:
        """Give fragments to pynetdicom's thread (PS3.8 E.2: bit 0 means a command, bit 1 the last)."""
        largest = (self.assoc.requestor.maximum_length or 1 << 17) - 6
        for start in range(0, len(message), largest):
            last = 0x02 if start + largest >= len(message) else 0
            data: Any = P_DATA()
            fragment = bytes([control | last]) + message[start : start + largest]
            data.presentation_data_value_list.append([self._context_id, fragment])
            self.assoc.dul.send_pdu(data)


class FindOperation(DimseOperation):
    """A C-FIND (PS3.7 9.1.2, PS3.4 C.4.1)."""

    def respond(self, status: int, identifier: Sequence[Element] = ()) -> None:
        """Send a response: pending with an identifier, or final."""
        self._send(0x8020, status, (), identifier)


class RetrieveOperation(DimseOperation):
    """A C-MOVE or a C-GET; ``field`` is the command field of its responses."""

    command_field: int

    def respond(self, status: int, tally: Tally | None = None, *, failed_uids: Sequence[str] = ()) -> None:
        """Send a response; with a tally it contains the counters (PS3.7 9.3.4.2)."""
        counters: list[Element] = []
        if tally is not None:
            # PS3.4 C.4.2.1.6: the remaining number is part of pending and cancelled responses
            if status in (PENDING, CANCELLED):
                counters.append((0x00001020, "US", tally.remaining))
            counters += [
                (0x00001021, "US", tally.completed),
                (0x00001022, "US", tally.failed),
                (0x00001023, "US", tally.warning),
            ]
        failed: list[Element] = [(0x00080058, "UI", "\\".join(failed_uids))]
        self._send(self.command_field, status, counters, failed if failed_uids else ())


class MoveOperation(RetrieveOperation):
    """A C-MOVE (PS3.7 9.1.4, PS3.4 C.4.2)."""

    command_field = 0x8021

    def __init__(self, assoc: Any, request: Any, context_id: int) -> None:
        super().__init__(assoc, request, context_id)
        self.destination: str = str(request.MoveDestination or "").strip()


class GetOperation(RetrieveOperation):
    """A C-GET (PS3.7 9.1.3, PS3.4 C.4.3).

    Its sub-operations bypass pynetdicom's thread, so its responses must do so too, to keep the order.
    """

    command_field = 0x8010

    def _transfer(self, message: bytes, control: int) -> None:
        largest = (self.assoc.requestor.maximum_length or 1 << 17) - 6
        out = bytearray()
        for start in range(0, len(message), largest):
            piece = message[start : start + largest]
            end = control | (0x02 if start + largest >= len(message) else 0)
            out += struct.pack(">BBIIBB", 0x04, 0, len(piece) + 6, len(piece) + 2, self._context_id, end)
            out += piece
        with suppress(OSError):  # the connection is gone: ``is_alive`` is False from now on
            self.assoc.dul.socket.socket.sendall(out)


def parse_identifier(identifier: Any) -> QueryIdentifier:
    """Level and keys of an identifier; sequences and character sets are not keys."""
    keys: Record = {}
    for element in identifier:
        keyword = keyword_for_tag(element.tag)
        if not keyword or element.VR == "SQ" or keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            continue
        values = element.value if element.VM > 1 else [element.value if element.value is not None else ""]
        keys[keyword] = "\\".join(map(str, values))
    return QueryIdentifier(str(identifier.get("QueryRetrieveLevel", "")).strip(), keys)


def record_to_elements(record: Record) -> list[Element]:
    """Return a record's values as data elements."""
    elements: list[Element] = []
    for keyword, value in record.items():
        tag = tag_for_keyword(keyword)
        if tag is not None:
            elements.append((tag, dictionary_VR(tag)[:2], value))
    return elements
