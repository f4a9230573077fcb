"""Inputs that are large and made to be slow: each takes time by its length, or is refused early.

A fuzzer's inputs are too short to show that something takes time by the square of a length.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

from dicom_quarry.wire import dimse, negotiation, pdu
from dicom_quarry.wire.negotiation import AcceptorPolicy, AssociateAccept
from dicom_quarry.wire.pdu import PduType
from fuzz.dialogue import OFFERED
from fuzz.peers import CT, MAX_PDU, REQUEST

_AT_ONCE, _ONE_BY_ONE, _MIXED = b"\0", b"\1", b"\2"
_REQUEST = pdu.encode_pdu(PduType.ASSOCIATE_RQ, negotiation.encode_request(OFFERED))
_STORE = b"".join(pdu.encode_message(3, dimse.encode(dimse.c_store_rq(1, CT, "1.2.3")), b"", 0))


def _pdvs(context_id: int, control: int, data: bytes, count: int) -> bytes:
    """Many fragments of the same data, in PDUs as long as is allowed."""
    part = struct.pack(">LBB", len(data) + 2, context_id, control) + data
    several = MAX_PDU // len(part)
    whole = struct.pack(">BxL", PduType.P_DATA_TF, several * len(part)) + part * several
    return whole * (count // several + 1)


def _item(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(data)) + data


def _associate(*items: bytes) -> bytes:
    body = negotiation.encode_request(OFFERED)[:68] + b"".join(items)
    return pdu.encode_pdu(PduType.ASSOCIATE_RQ, body)


def _accepted() -> bytes:
    answer: AssociateAccept = AcceptorPolicy(8, accepts=lambda _: True).answer(REQUEST)
    return b"\xff" + pdu.encode_pdu(PduType.ASSOCIATE_AC, negotiation.encode_accept(answer))


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _named(charset: bytes, name: bytes) -> bytes:
    return _element(0x00080005, b"CS", charset) + _element(0x00100010, b"PN", name)


def _nested(depth: int) -> bytes:
    begin = struct.pack("<HHL", 8, 0x1140, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


def _bomb(megabytes: int) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    begin = deflate.compress(struct.pack("<HH2sHL", 8, 1, b"OB", 0, megabytes << 20))
    zeros = bytes(1 << 20)
    return begin + b"".join(deflate.compress(zeros) for _ in range(megabytes)) + deflate.flush()


_EMPTY_ELEMENTS = struct.pack("<HHL", 8, 0, 0) * 65_536
_EMPTY_COMMAND_ELEMENTS = struct.pack("<HHL", 0, 0x0902, 0) * 8191
_PRIVATE = [f"1.2.{number}" for number in range(128)]

#: By harness and name; made when called, since some take megabytes.
HOSTILE: Mapping[tuple[str, str], Callable[[], bytes]] = {
    ("acceptor", "empty command fragments"): lambda: _AT_ONCE + _REQUEST + _pdvs(1, 1, b"", 100_000),
    ("acceptor", "a command in single bytes"): lambda: _AT_ONCE + _REQUEST + _pdvs(1, 1, b"x", 70_000),
    ("acceptor", "an endless command"): lambda: _AT_ONCE + _REQUEST + _pdvs(1, 1, bytes(1000), 700),
    ("acceptor", "a dataset in single bytes"): lambda: (
        _AT_ONCE + _REQUEST + _STORE + _pdvs(3, 0, b"x", 100_000)
    ),
    ("acceptor", "empty dataset fragments, read one by one"): lambda: (
        _ONE_BY_ONE + _REQUEST + _STORE + _pdvs(3, 0, b"", 10_000)
    ),
    ("acceptor", "a long request, read one by one"): lambda: (
        _ONE_BY_ONE + _associate(_item(0x99, bytes(60_000)) * 4) + _STORE
    ),
    ("acceptor", "many empty items"): lambda: _MIXED + _associate(_item(0x99, b"") * 65_000),
    ("acceptor", "many transfer syntaxes"): lambda: (
        _AT_ONCE
        + _associate(
            *(
                _item(0x20, bytes((n, 0, 0, 0)) + _item(0x30, b"1.2") + _item(0x40, b"1.2") * 2000)
                for n in range(1, 30, 2)
            )
        )
    ),
    ("acceptor", "many roles"): lambda: (
        _AT_ONCE
        + _associate(
            *(
                _item(0x20, bytes((2 * n + 1, 0, 0, 0)) + _item(0x30, uid.encode()) + _item(0x40, b"1.2"))
                for n, uid in enumerate(_PRIVATE)
            ),
            *[_item(0x50, _item(0x54, b"\0\x051.2.1\1\1") * 4000)] * 3,
        )
    ),
    ("requestor", "tiny answers"): lambda: (
        _AT_ONCE + _accepted() + _pdvs(3, 3, dimse.encode(dimse.response(dimse.c_echo_rq(1), 0)), 5_000)
    ),
    ("requestor", "an answer in single bytes"): lambda: _AT_ONCE + _accepted() + _pdvs(3, 1, b"x", 70_000),
    ("command", "empty elements"): lambda: _EMPTY_COMMAND_ELEMENTS,
    ("items", "nothing but lengths"): lambda: bytes(262_000),
    ("items", "a long UID"): lambda: _item(0x20, b"\1\0\0\0" + _item(0x30, b"1" * 65_000)),
    ("items", "a UID with many dots"): lambda: _item(0x20, b"\1\0\0\0" + _item(0x30, b"1." * 32_000)),
    ("header", "empty elements, in single bytes"): lambda: b"\0\1" + _EMPTY_ELEMENTS,
    ("header", "deep sequences"): lambda: b"\0\2" + _nested(30_000),
    ("header", "deep sequences, in single bytes"): lambda: b"\0\1" + _nested(10_000),
    ("header", "a long value, in single bytes"): lambda: b"\1\1" + _named(b"ISO_IR 192", b"x" * 65_534),
    ("header", "a value too long"): lambda: (
        b"\1\2" + struct.pack("<HH2sHL", 16, 16, b"UT", 0, 1 << 20) + bytes(1 << 20)
    ),
    ("header", "many character sets"): lambda: b"\1\2" + _named(b"X\\" * 32_000, b"x"),
    ("header", "many character sets and many escapes"): lambda: (
        b"\1\2" + _named(b"\\" * 65_534, b"\x1b$B" * 21_844)
    ),
    ("header", "nothing but escapes"): lambda: b"\1\2" + _named(b"\\ISO 2022 IR 87", b"\x1b" * 65_534),
    ("header", "many values"): lambda: b"\1\2" + _named(b"", b"\\" * 65_534),
    ("header", "a deflate bomb"): lambda: b"\3\0" + _bomb(260),
}
