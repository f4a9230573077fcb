"""DIMSE command sets: their fields, encoding and decoding (PS3.7 section 9 and annex E).

A command set is always Implicit VR Little Endian (PS3.7 6.3.1) and contains group 0000 only. Decoding is
tolerant (no group length, padded UIDs, unknown elements, empty optional numbers), except where a guess
would be dangerous: a response without a status is an error, never a success.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from operator import attrgetter

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.pdu import PDVFragment

#: Bytes. No command set of PS3.7 comes near this; a longer one is an attack or not DICOM.
MAX_COMMAND_SIZE = 65536

VERIFICATION = "1.2.840.10008.1.1"
SUCCESS = 0x0000
#: Statuses after which more responses follow (PS3.4 C.4.1.1.4, C.4.2.1.5).
PENDING = (0xFF00, 0xFF01)

_NO_DATASET = 0x0101
_DATASET = 0x0001
_ELEMENT = struct.Struct("<HHL")
_US_ELEMENT = struct.Struct("<HHLH")
_UL_ELEMENT = struct.Struct("<HHLL")


class CommandField(IntEnum):
    """Messages that Quarry supports (PS3.7 E.1); a response is its request with the high bit set."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF

    @property
    def is_response(self) -> bool:
        """True for a response, False for a request and for C-CANCEL."""
        return bool(self & 0x8000)


class Priority(IntEnum):
    """Priority of an operation (PS3.7 E.1)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class Command:
    """One command set.

    ``message_id`` means something in requests; ``message_id_responded_to`` in responses and in C-CANCEL;
    ``status`` in responses. Sub-operation counters are None where the peer sent none, which is not zero.
    """

    field: CommandField
    message_id: int = 0
    message_id_responded_to: int = 0
    has_dataset: bool = False
    status: int = 0
    affected_sop_class: str = ""
    affected_sop_instance: str = ""
    priority: int | None = None
    move_destination: str = ""
    move_originator: str = ""
    move_originator_message_id: int | None = None
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    error_comment: str = ""
    offending_elements: tuple[int, ...] = ()
    error_id: int | None = None


def c_echo_rq(message_id: int) -> Command:
    """Build a verification request (PS3.7 9.3.5.1)."""
    return Command(CommandField.C_ECHO_RQ, message_id, affected_sop_class=VERIFICATION)


def c_find_rq(message_id: int, sop_class: str, priority: int = Priority.MEDIUM) -> Command:
    """Build a query request; its identifier follows as the dataset (PS3.7 9.3.2.1)."""
    return Command(
        CommandField.C_FIND_RQ, message_id, has_dataset=True, affected_sop_class=sop_class, priority=priority
    )


def c_get_rq(message_id: int, sop_class: str, priority: int = Priority.MEDIUM) -> Command:
    """Build a request to send instances over this association; an identifier follows (PS3.7 9.3.3.1)."""
    return Command(
        CommandField.C_GET_RQ, message_id, has_dataset=True, affected_sop_class=sop_class, priority=priority
    )


def c_move_rq(message_id: int, sop_class: str, destination: str, priority: int = Priority.MEDIUM) -> Command:
    """Build a request to send instances to the AE ``destination``; an identifier follows (PS3.7 9.3.4.1)."""
    return Command(
        CommandField.C_MOVE_RQ,
        message_id,
        has_dataset=True,
        affected_sop_class=sop_class,
        priority=priority,
        move_destination=destination,
    )


def c_store_rq(
    message_id: int, sop_class: str, sop_instance: str, priority: int = Priority.MEDIUM
) -> Command:
    """Build a storage request; the instance follows as the dataset (PS3.7 9.3.1.1)."""
    return Command(
        CommandField.C_STORE_RQ,
        message_id,
        has_dataset=True,
        affected_sop_class=sop_class,
        affected_sop_instance=sop_instance,
        priority=priority,
    )


def c_cancel_rq(message_id: int) -> Command:
    """Build the cancellation of the C-FIND, C-GET or C-MOVE with this message ID (PS3.7 9.3.2.3).

    It has no response of its own.
    """
    return Command(CommandField.C_CANCEL_RQ, message_id_responded_to=message_id)


def response(request: Command, status: int, comment: str = "") -> Command:
    """Build the response to a request; the comment is cut to 64 characters (LO, PS3.5 6.2)."""
    return Command(
        _FIELDS[request.field | 0x8000],
        message_id_responded_to=request.message_id,
        status=status,
        affected_sop_class=request.affected_sop_class,
        affected_sop_instance=request.affected_sop_instance,
        error_comment=comment[:64],
    )


# Every element of group 0000 that is read or written here, ascending, with the attribute it fills.
_ELEMENTS: tuple[tuple[int, str, str], ...] = (
    (0x0002, "affected_sop_class", "UI"),
    (0x0100, "field", "US"),
    (0x0110, "message_id", "US"),
    (0x0120, "message_id_responded_to", "US"),
    (0x0600, "move_destination", "AE"),
    (0x0700, "priority", "US"),
    (0x0800, "has_dataset", "US"),
    (0x0900, "status", "US"),
    (0x0901, "offending_elements", "AT"),
    (0x0902, "error_comment", "LO"),
    (0x0903, "error_id", "US"),
    (0x1000, "affected_sop_instance", "UI"),
    (0x1020, "remaining", "US"),
    (0x1021, "completed", "US"),
    (0x1022, "failed", "US"),
    (0x1023, "warning", "US"),
    (0x1030, "move_originator", "AE"),
    (0x1031, "move_originator_message_id", "US"),
)
_BY_NUMBER = {number: (name, vr) for number, name, vr in _ELEMENTS}
_FIELDS = {field.value: field for field in CommandField}
_OMITTED_FIELDS = {  # fields without a meaning in this kind of message, which are not written
    "request": ("message_id_responded_to", "status"),
    "response": ("message_id", "priority"),
    "cancel": ("message_id", "status", "priority"),
}
_ENCODED_ELEMENTS = {
    kind: tuple(element for element in _ELEMENTS if element[1] not in names)
    for kind, names in _OMITTED_FIELDS.items()
}
#: The values of these, in one call.
_ENCODED_VALUES = {
    kind: attrgetter(*(name for _, name, _ in elements)) for kind, elements in _ENCODED_ELEMENTS.items()
}

_REQUIRED = {
    "response": ("message_id_responded_to", "status", "has_dataset"),
    "request": ("message_id", "has_dataset"),
    "cancel": ("message_id_responded_to", "has_dataset"),
}


def _kind(field: CommandField) -> str:
    if field.is_response:
        return "response"
    return "cancel" if field is CommandField.C_CANCEL_RQ else "request"


_KINDS = {field: _kind(field) for field in CommandField}


def encode(command: Command) -> bytes:
    """Encode a command set, group length first (PS3.7 6.3.1)."""
    parts = []
    kind = _KINDS[command.field]
    for (number, name, vr), value in zip(
        _ENCODED_ELEMENTS[kind], _ENCODED_VALUES[kind](command), strict=True
    ):
        if value is None or value == "" or value == ():
            continue
        if name == "has_dataset":
            value = _DATASET if value else _NO_DATASET
        parts.append(_encode_element(number, vr, value))
    body = b"".join(parts)
    return _UL_ELEMENT.pack(0, 0, 4, len(body)) + body


@lru_cache(maxsize=64)
def _encode_element(number: int, vr: str, value: object) -> bytes:
    if isinstance(value, int):
        return _US_ELEMENT.pack(0, number, 2, value)
    if isinstance(value, tuple):
        data = b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
    else:
        data = str(value).encode("latin-1", "replace")
        if len(data) % 2:
            data += b"\0" if vr == "UI" else b" "
    return _ELEMENT.pack(0, number, len(data)) + data


def decode(data: bytes | bytearray) -> Command:
    """Decode a command set; raises RemoteProtocolError if it is malformed or lacks a required element."""
    values: dict[str, object] = {}
    data = bytes(data)
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 8:
            raise RemoteProtocolError("a command set ends within an element")
        group, number, length = _ELEMENT.unpack_from(data, offset)
        offset += 8
        if length > end - offset:
            raise RemoteProtocolError(
                f"command element ({group:04X},{number:04X}) is longer than the command set"
            )
        known = _BY_NUMBER.get(number) if group == 0 else None
        if known:
            name, vr = known
            if vr != "US":
                values[name] = _decode_value(vr, data[offset : offset + length])
            elif length == 2:
                # A number of any other length counts as absent: an error where the number is required.
                values[name] = data[offset] | data[offset + 1] << 8
        offset += length
    return _build_command(values)


def _decode_value(vr: str, value: bytes) -> object:
    if vr == "AT":
        pairs = struct.iter_unpack("<HH", value[: len(value) // 4 * 4])
        return tuple(group << 16 | element for group, element in pairs)
    text = value.decode("latin-1").rstrip("\0 ")
    if vr == "UI":
        return text
    # Comments and titles reach terminals and logs: they must not contain control characters.
    return "".join(char if char.isprintable() else "?" for char in text).strip()


def _build_command(values: dict[str, object]) -> Command:
    number = values.pop("field", None)
    field = _FIELDS.get(number)  # type: ignore[call-overload]
    if field is None:
        raise RemoteProtocolError(f"unknown command field {number}")
    for name in _REQUIRED[_KINDS[field]]:
        if name not in values:
            raise RemoteProtocolError(f"{field.name} without {name.replace('_', ' ')}")
    values["has_dataset"] = values["has_dataset"] != _NO_DATASET
    return Command(field, **values)  # type: ignore[arg-type]


def _dataset_expected(command: Command) -> bool:
    """Return True if a dataset may follow a command; some peers announce one where PS3.7 has none.

    A match of a C-FIND always has one (PS3.7 9.1.2.1.5), whatever its command set announces.
    """
    match command.field:
        case CommandField.C_FIND_RSP:
            return command.status in PENDING
        case CommandField.C_MOVE_RSP | CommandField.C_GET_RSP:
            # The Failed SOP Instance UID List (PS3.4 C.4.2.1.4.2).
            return command.has_dataset and command.status not in (SUCCESS, *PENDING)
        case CommandField.C_ECHO_RQ | CommandField.C_ECHO_RSP | CommandField.C_CANCEL_RQ:
            return False
    return command.has_dataset


class CommandReader:
    """Reader of command sets from fragments; checks the order of commands and datasets (PS3.8 E.2).

    ``contexts`` contains the accepted presentation context IDs. Dataset fragments pass through unchanged, so
    that an instance is never collected in memory. A dataset that was announced and does not come is passed
    over: the next command counts. So is a dataset of a command that has none: its fragments are dropped.
    """

    def __init__(self, contexts: Container[int]) -> None:
        self._contexts = contexts
        self._partial = bytearray()
        self._context_id = 0  # of the current message
        self._dataset_due = False
        self._dataset_begun = False
        self._dataset_dropped = False  # fragments of a dataset that does not belong to the message may come

    @property
    def is_within_message(self) -> bool:
        """True from the first fragment of a message to its last."""
        return self._dataset_due or bool(self._partial)

    def skip_dataset(self) -> bool:
        """Wait for the dataset that is due no longer; return False, with no effect, if it has begun."""
        if not self._dataset_due or self._dataset_begun:
            return False
        self._dataset_due, self._dataset_dropped = False, True
        return True

    def feed(self, fragment: PDVFragment) -> Command | PDVFragment | None:
        """Return a whole command, the fragment itself if it belongs to a dataset, or None for more.

        None means that the command set is not complete yet, or that the fragment is dropped. Raises
        RemoteProtocolError for an order of fragments that PS3.7 does not allow.
        """
        if not fragment.is_command:
            return self._feed_dataset(fragment)
        if self._dataset_due and not self.skip_dataset():
            raise RemoteProtocolError("a command in the middle of a dataset")
        return self._feed_command(fragment)

    def _feed_dataset(self, fragment: PDVFragment) -> PDVFragment | None:
        is_possible = (self._dataset_due or self._dataset_dropped) and not self._partial
        if fragment.context_id != self._context_id or not is_possible:
            raise RemoteProtocolError("a dataset without a command before it on its presentation context")
        belongs = self._dataset_due
        if fragment.is_last:
            self._dataset_due = self._dataset_dropped = False
        self._dataset_begun = not fragment.is_last
        return fragment if belongs else None

    def _feed_command(self, fragment: PDVFragment) -> Command | None:
        if fragment.context_id not in self._contexts:
            raise RemoteProtocolError(f"presentation context {fragment.context_id} was not accepted")
        if self._partial and fragment.context_id != self._context_id:
            raise RemoteProtocolError("a command that changes its presentation context")
        self._context_id = fragment.context_id
        self._partial += fragment.data
        if len(self._partial) > MAX_COMMAND_SIZE:
            raise RemoteProtocolError(f"a command set of more than {MAX_COMMAND_SIZE} bytes")
        if not fragment.is_last:
            return None
        command = decode(self._partial)
        self._partial.clear()
        self._dataset_due, self._dataset_begun = _dataset_expected(command), False
        self._dataset_dropped = not self._dataset_due
        if command.has_dataset and not self._dataset_due:
            return replace(command, has_dataset=False)
        return command
