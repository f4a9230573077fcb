"""Command sets: encoding is strict, decoding is tolerant but never guesses."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire import dimse
from dicom_quarry.wire.dimse import Command, CommandField, CommandReader
from dicom_quarry.wire.pdu import PDVFragment

CT = "1.2.840.10008.5.1.4.1.1.2"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"

REQUESTS = [
    dimse.c_echo_rq(1),
    dimse.c_find_rq(2, FIND),
    dimse.c_move_rq(0, MOVE, "QUARRY", dimse.Priority.LOW),
    dimse.c_get_rq(3, "1.2.840.10008.5.1.4.1.2.2.3"),
    dimse.c_store_rq(65535, CT, "1.2.3"),
    dimse.c_cancel_rq(2),
]
RESPONSES = [
    dimse.response(dimse.c_echo_rq(1), 0),
    dimse.response(dimse.c_store_rq(7, CT, "1.2.3.4"), 0xA700, "no room"),
    Command(
        CommandField.C_MOVE_RSP,
        message_id_responded_to=4,
        status=0xB000,
        has_dataset=True,
        affected_sop_class=MOVE,
        remaining=0,
        completed=5,
        failed=2,
        warning=1,
    ),
    Command(
        CommandField.C_FIND_RSP,
        message_id_responded_to=4,
        status=0xC001,
        error_comment="what",
        error_id=9,
        offending_elements=(0x00100020, 0x0020000D),
    ),
]


def element(number: int, data: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHL", group, number, len(data)) + data


def us(number: int, value: int) -> bytes:
    return element(number, struct.pack("<H", value))


@pytest.mark.parametrize("command", REQUESTS + RESPONSES, ids=lambda command: command.field.name)
def test_what_is_written_reads_back(command: Command) -> None:
    assert dimse.decode(dimse.encode(command)) == command


@pytest.mark.parametrize("command", REQUESTS + RESPONSES, ids=lambda command: command.field.name)
def test_pydicom_reads_the_same(command: Command) -> None:
    data = dimse.encode(command)
    dataset = read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    assert dataset.CommandGroupLength == len(data) - 12
    assert [element.tag for element in dataset] == sorted(element.tag for element in dataset)
    assert dataset.CommandField == command.field
    assert (dataset.CommandDataSetType != 0x0101) == command.has_dataset
    assert ("Status" in dataset) == command.field.is_response
    assert ("MessageID" in dataset) == (not command.field.is_response and command != dimse.c_cancel_rq(2))
    if command.move_destination:
        assert dataset.MoveDestination == "QUARRY"
    if command.offending_elements:
        assert list(dataset.OffendingElement) == [0x00100020, 0x0020000D]


def test_a_tolerant_reader() -> None:
    """No group length, padded UIDs and titles, unknown elements, another group."""
    data = (
        element(0x0002, b"1.2.840.10008.5.1.4.1.1.2\0")
        + element(0x0042, b"????")
        + us(0x0100, 0x0001)
        + us(0x0110, 5)
        + us(0x0800, 0x0102)
        + element(0x1000, b"1.2.3  ")
        + element(0x1030, b"MOVER  \0")
        + element(0x0010, b"private", group=0x0009)
    )
    command = dimse.decode(data)
    assert (command.affected_sop_class, command.affected_sop_instance) == (CT, "1.2.3")
    assert (command.move_originator, command.message_id, command.has_dataset) == ("MOVER", 5, True)
    assert command.completed is None


def test_comments_cannot_steer_a_terminal() -> None:
    data = us(0x0100, 0x8020) + us(0x0120, 1) + us(0x0800, 0x0101) + us(0x0900, 0xC000)
    command = dimse.decode(data + element(0x0902, b"\x1b[2Joops\n"))
    assert command.error_comment == "?[2Joops?"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(us(0x0110, 1) + us(0x0800, 0x0101), id="no command field"),
        pytest.param(us(0x0100, 0x0030) + us(0x0110, 1), id="no dataset type"),
        pytest.param(us(0x0100, 0x0030) + us(0x0800, 0x0101), id="request without message ID"),
        pytest.param(us(0x0100, 0x8021) + us(0x0120, 1) + us(0x0800, 0x0101), id="response without status"),
        pytest.param(us(0x0100, 0x8021) + us(0x0900, 0) + us(0x0800, 0x0101), id="response to nothing"),
        pytest.param(us(0x0100, 0x0140) + us(0x0110, 1) + us(0x0800, 0x0101), id="N-CREATE"),
        pytest.param(element(0x0100, b"\x30") + us(0x0110, 1), id="short number"),
        pytest.param(us(0x0100, 0x0030) + b"\0\0", id="cut in an element header"),
        pytest.param(us(0x0100, 0x0030) + struct.pack("<HHL", 0, 0x0110, 0xFFFFFFFF), id="element of 4 GB"),
    ],
)
def test_a_command_set_without_required_elements_is_an_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        dimse.decode(data)


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        dimse.decode(data)
    except RemoteProtocolError:
        pass


def fragment(data: bytes, *, command: bool, last: bool, context_id: int = 1) -> PDVFragment:
    return PDVFragment(context_id, command, last, memoryview(data))


STORE = dimse.encode(dimse.c_store_rq(1, CT, "1.2.3"))


def test_a_command_in_pieces_then_its_dataset() -> None:
    reader = CommandReader({1})
    assert reader.feed(fragment(STORE[:20], command=True, last=False)) is None
    assert reader.is_within_message
    assert reader.feed(fragment(STORE[20:], command=True, last=True)) == dimse.c_store_rq(1, CT, "1.2.3")
    piece = fragment(b"data", command=False, last=False)
    assert reader.feed(piece) is piece
    assert reader.is_within_message
    reader.feed(fragment(b"", command=False, last=True))
    assert not reader.is_within_message


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param([fragment(STORE, command=True, last=True, context_id=3)], id="unknown context"),
        pytest.param([fragment(b"x", command=False, last=True)], id="dataset without a command"),
        pytest.param(
            [
                fragment(STORE, command=True, last=True),
                fragment(b"x", command=False, last=False),
                fragment(STORE, command=True, last=True),
            ],
            id="command in the middle of a dataset",
        ),
        pytest.param(
            [
                fragment(STORE, command=True, last=True),
                fragment(b"x", command=False, last=True, context_id=5),
            ],
            id="dataset in another context",
        ),
        pytest.param(
            [
                fragment(STORE[:20], command=True, last=False),
                fragment(STORE[20:], command=True, last=True, context_id=5),
            ],
            id="command that changes its context",
        ),
        pytest.param(
            [fragment(STORE[:20], command=True, last=False), fragment(b"x", command=False, last=True)],
            id="dataset in the middle of a command",
        ),
        pytest.param(
            [
                fragment(bytes(40000), command=True, last=False),
                fragment(bytes(40000), command=True, last=False),
            ],
            id="command without end",
        ),
    ],
)
def test_an_illegal_order_is_an_error(fragments: list[PDVFragment]) -> None:
    reader = CommandReader({1, 5})
    with pytest.raises(RemoteProtocolError):
        for piece in fragments:
            reader.feed(piece)


def test_a_dataset_that_is_announced_and_does_not_come_is_passed_over() -> None:
    reader = CommandReader({1})
    assert isinstance(reader.feed(fragment(STORE, command=True, last=True)), Command)
    assert reader.is_within_message
    assert reader.feed(fragment(STORE[:20], command=True, last=False)) is None
    assert isinstance(reader.feed(fragment(STORE[20:], command=True, last=True)), Command)
    data = fragment(b"x", command=False, last=True)
    assert reader.feed(data) is data
    assert not reader.is_within_message


@pytest.mark.parametrize(
    "command",
    [
        Command(CommandField.C_FIND_RSP, status=0, has_dataset=True),
        Command(CommandField.C_FIND_RSP, status=0xA700, has_dataset=True),
        Command(CommandField.C_MOVE_RSP, status=0, has_dataset=True),
        Command(CommandField.C_MOVE_RSP, status=0xFF00, has_dataset=True),
        Command(CommandField.C_ECHO_RQ, 1, has_dataset=True),
        Command(CommandField.C_ECHO_RSP, status=0, has_dataset=True),
    ],
)
def test_no_dataset_is_awaited_where_none_belongs_and_one_that_comes_is_dropped(command: Command) -> None:
    reader = CommandReader({1})
    for _ in range(2):
        unit = reader.feed(fragment(dimse.encode(command), command=True, last=True))
        assert isinstance(unit, Command) and not unit.has_dataset
        assert not reader.is_within_message
        assert reader.feed(fragment(b"x", command=False, last=False)) is None
        assert reader.feed(fragment(b"y", command=False, last=True)) is None


def test_a_match_has_a_dataset_even_if_its_command_set_denies_it() -> None:
    reader = CommandReader({1})
    match = dimse.encode(Command(CommandField.C_FIND_RSP, status=0xFF00))
    unit = reader.feed(fragment(match, command=True, last=True))
    assert isinstance(unit, Command) and reader.is_within_message
    data = fragment(b"x", command=False, last=True)
    assert reader.feed(data) is data


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0"])
@pytest.mark.parametrize("number", [0x0700, 0x0903, 0x1020, 0x1021, 0x1022, 0x1023, 0x1031])
def test_an_optional_number_without_two_bytes_counts_as_absent(number: int, value: bytes) -> None:
    whole = element(0x0002, b"1.2 ") + us(0x0100, 0x8021) + us(0x0120, 7) + us(0x0800, 0x0101) + us(0x0900, 0)
    command = dimse.decode(whole + element(number, value))
    assert command == dimse.decode(whole)


@pytest.mark.parametrize("required", [0x0120, 0x0800, 0x0900])
def test_a_required_number_without_two_bytes_is_an_error(required: int) -> None:
    numbers = {0x0100: 0x8021, 0x0120: 7, 0x0800: 0x0101, 0x0900: 0}
    parts = [element(one, b"") if one == required else us(one, value) for one, value in numbers.items()]
    with pytest.raises(RemoteProtocolError):
        dimse.decode(b"".join(parts))
