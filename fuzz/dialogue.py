"""Bytes as the script of a conversation: framing is made right, then damaged where the script says so.

Random bytes seldom get past an association request. Here each opcode is a PDU with its lengths computed, so
that a fuzzer spends its time on orders, contexts, fragments and contents.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from dicom_quarry.wire import dimse, negotiation, pdu
from dicom_quarry.wire.dimse import VERIFICATION, Command, CommandField
from dicom_quarry.wire.negotiation import AcceptorPolicy, AssociateRequest, propose_contexts
from dicom_quarry.wire.pdu import PduType
from fuzz.peers import CT, DEFLATED, EXPLICIT, IMPLICIT, MAX_PDU, REQUEST

#: No script needs more; it keeps single executions short.
_LONGEST = 1 << 14
OFFERED = AssociateRequest(
    "QUARRY",
    "SENDER",
    propose_contexts(
        [(VERIFICATION, [IMPLICIT]), (CT, [IMPLICIT]), (CT, [DEFLATED]), ("1.3.12.2", [EXPLICIT])]
    ),
    MAX_PDU,
    roles={CT: (True, True)},
)
_CONTEXTS = (1, 3, 5, 7, 2, 9, 0, 255)
_FIELDS = tuple(CommandField)
_STATUSES = (0x0000, 0xFF00, 0xFF01, 0xB000, 0xA700, 0xFE00)


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


_DATASET = (
    _element(0x00080005, b"CS", b"ISO 2022 IR 6\\ISO 2022 IR 87")
    + _element(0x00080018, b"UI", b"1.2.3.4\0")
    + _element(0x00100010, b"PN", b"Yamada^\x1b$B;3ED\x1b(B^")
    + _element(0x00100020, b"LO", b"4711")
    + _element(0x0020000D, b"UI", b"1.2.3\0")
    + _element(0x0020000E, b"UI", b"1.2.3.5\0")
    + _element(0x00280010, b"US", b"\0\2")
)


class Script:
    """Reads the script, and writes the conversation."""

    def __init__(self, data: bytes) -> None:
        self.out = bytearray()
        self._data = data
        self._at = 0

    @property
    def goes_on(self) -> bool:
        return self._at < len(self._data) and len(self.out) < _LONGEST

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def literal(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def place(self) -> int:
        """Return a position in the conversation so far."""
        return (self.byte() << 8 | self.byte()) % (len(self.out) or 1)

    def pdv(self, context_id: int, control: int, data: bytes) -> None:
        """One fragment in a PDU of its own."""
        body = struct.pack(">LBB", len(data) + 2, context_id, control & 3) + data
        self.out += struct.pack(">BxL", PduType.P_DATA_TF, len(body)) + body


def _request(script: Script) -> None:
    script.out += pdu.encode_pdu(PduType.ASSOCIATE_RQ, negotiation.encode_request(OFFERED))


def _accept(script: Script) -> None:
    answer = AcceptorPolicy(script.byte() or MAX_PDU, accepts=lambda _: True).answer(REQUEST)
    script.out += pdu.encode_pdu(PduType.ASSOCIATE_AC, negotiation.encode_accept(answer))


def _command(script: Script) -> None:
    kind, context, flags = script.byte(), script.byte(), script.byte()
    command = Command(
        _FIELDS[kind % len(_FIELDS)],
        message_id=flags,
        message_id_responded_to=1,
        has_dataset=bool(context & 0x80),
        status=_STATUSES[flags % len(_STATUSES)],
        affected_sop_class=CT,
        affected_sop_instance="1.2.3.4",
    )
    encoded = dimse.encode(command)
    cut = flags >> 4 if context & 0x40 else 0
    if cut:
        script.pdv(_CONTEXTS[context % 8], 1, encoded[:cut])
    script.pdv(_CONTEXTS[context % 8], 3, encoded[cut:])


def _raw_command(script: Script) -> None:
    context, count = script.byte(), script.byte()
    script.pdv(_CONTEXTS[context % 8], context >> 6, script.literal(count))


def _store(script: Script) -> None:
    """A whole C-STORE, the command of any order with a dataset that is right."""
    context = _CONTEXTS[script.byte() % 8]
    script.pdv(context, 3, dimse.encode(dimse.c_store_rq(7, CT, "1.2.3.4")))
    script.pdv(context, 2, _DATASET)


def _fragment(script: Script) -> None:
    context, count = script.byte(), script.byte()
    script.pdv(_CONTEXTS[context % 8], (context >> 6) & 2, script.literal(count))


def _many(script: Script) -> None:
    """Several fragments in one PDU, often empty ones."""
    context, count, size = script.byte(), script.byte(), script.byte() % 8
    part = struct.pack(">LBB", size + 2, _CONTEXTS[context % 8], context >> 6) + bytes(size)
    script.out += struct.pack(">BxL", PduType.P_DATA_TF, len(part) * count) + part * count


def _control(script: Script) -> None:
    kind = script.byte() % 8
    script.out += struct.pack(">BxL", kind, 4) + script.literal(4).ljust(4, b"\0")


def _raw(script: Script) -> None:
    script.out += script.literal(script.byte())


def _set(script: Script) -> None:
    place, value = script.place(), script.byte()
    if script.out:
        script.out[place] = value


def _delete(script: Script) -> None:
    place, count = script.place(), script.byte()
    del script.out[place : place + count]


def _repeat(script: Script) -> None:
    place, count = script.place(), script.byte()
    script.out += script.out[place : place + 16 * count]


def _insert(script: Script) -> None:
    place, count = script.place(), script.byte() % 16
    script.out[place:place] = script.literal(count)


_VERBS: tuple[Callable[[Script], None], ...] = (
    _request,
    _accept,
    _command,
    _raw_command,
    _store,
    _fragment,
    _many,
    _control,
    _raw,
    _set,
    _delete,
    _repeat,
    _insert,
)


def conversation(data: bytes) -> bytes:
    """Return the conversation of a script."""
    script = Script(data)
    while script.goes_on:
        _VERBS[script.byte() % len(_VERBS)](script)
    return bytes(script.out)
