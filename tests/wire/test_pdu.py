"""The PDU reader: any split of the stream, PDUs of any size, and everything that is not a PDU."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire import pdu
from dicom_quarry.wire.pdu import MAX_CONTROL_PDU, ControlPdu, PduReader, PduType, PDVFragment

MAX_PDU = 4096


def feed(reader: PduReader, data: bytes) -> Iterable[ControlPdu | PDVFragment]:
    """Read the data through however little space there is; fragments with their bytes copied out."""
    while data:
        space = reader.get_buffer()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        reader.buffer_updated(count)
        data = data[count:]
        for unit in reader.units():
            yield copied(unit) if isinstance(unit, PDVFragment) else unit


def copied(fragment: PDVFragment) -> PDVFragment:
    return fragment._replace(data=memoryview(b"".join((fragment.data, *fragment.more))), more=())


Whole = ControlPdu | tuple[int, bool, bool, bytes]


def joined(units: Iterable[ControlPdu | PDVFragment]) -> list[Whole]:
    """Pieces of one PDV put together, so that the way it was cut no longer shows."""
    whole: list[Whole] = []
    for unit in units:
        if isinstance(unit, ControlPdu):
            whole.append(unit)
            continue
        before = whole[-1] if whole else None
        data = bytes(unit.data)
        if isinstance(before, tuple) and not isinstance(before, ControlPdu):
            context_id, is_command, is_last, start = before
            if (context_id, is_command) == (unit.context_id, unit.is_command) and not is_last:
                whole[-1] = (context_id, is_command, unit.is_last, start + data)
                continue
        whole.append((unit.context_id, unit.is_command, unit.is_last, data))
    return whole


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BxL", PduType.P_DATA_TF, len(body)) + body


pdvs = st.builds(pdv, st.sampled_from([1, 3, 255]), st.integers(0, 3), st.binary(max_size=300))
pdus = st.one_of(
    st.lists(pdvs, min_size=1, max_size=4).map(lambda parts: p_data(*parts)),
    st.just(pdu.encode_release(PduType.RELEASE_RQ)),
    st.just(pdu.encode_abort(0, 0)),
    st.binary(min_size=68, max_size=400).map(lambda body: pdu.encode_pdu(PduType.ASSOCIATE_RQ, body)),
)


@given(st.lists(pdus, min_size=1, max_size=6), st.data())
def test_any_split_into_reads_gives_the_same_units(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    at_once = joined(feed(PduReader(MAX_PDU), stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = PduReader(MAX_PDU)
    units = [
        unit
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for unit in feed(reader, stream[start:stop])
    ]
    assert joined(units) == at_once


def test_one_byte_at_a_time() -> None:
    stream = p_data(pdv(1, 1, b"command!"), pdv(1, 3, b"")) + pdu.encode_release(PduType.RELEASE_RP)
    reader = PduReader(MAX_PDU)
    units = joined(unit for byte in stream for unit in feed(reader, bytes((byte,))))
    assert units == [(1, True, True, b"command!"), ControlPdu(PduType.RELEASE_RP, bytes(4))]


def test_a_pdu_larger_than_the_buffer_passes_in_pieces_and_only_the_final_one_is_last() -> None:
    data = bytes(range(256)) * 4096
    reader = PduReader(0, buffer_size=1024)
    units = [unit for unit in feed(reader, p_data(pdv(5, 2, data))) if isinstance(unit, PDVFragment)]
    assert len(units) > 1000
    assert [unit.is_last for unit in units] == [False] * (len(units) - 1) + [True]
    assert b"".join(unit.data for unit in units) == data


def test_the_buffer_grows_once_a_read_has_filled_it_and_keeps_what_was_not_read() -> None:
    body = bytes(range(256)) * 800
    stream = pdu.encode_pdu(PduType.ASSOCIATE_RQ, body) + p_data(pdv(5, 2, body))
    reader, sizes = PduReader(0), list[int]()
    sizes.append(len(reader.get_buffer()))
    units = list(feed(reader, stream))
    sizes.append(len(reader.get_buffer()))
    assert joined(units) == [ControlPdu(PduType.ASSOCIATE_RQ, body), (5, False, True, body)]
    assert sizes[0] < len(body) and sizes[1] == pdu.BUFFER_SIZE


def test_fragments_are_views_of_the_receive_buffer() -> None:
    reader = PduReader(MAX_PDU)
    stream = p_data(pdv(1, 2, b"pixels"))
    space = reader.get_buffer()
    space[: len(stream)] = stream
    reader.buffer_updated(len(stream))
    (fragment,) = reader.units()
    assert isinstance(fragment, PDVFragment)
    space[len(stream) - 6 : len(stream)] = b"PIXELS"
    assert bytes(fragment.data) == b"PIXELS"


def test_pieces_of_a_dataset_that_have_come_together_are_given_together() -> None:
    parts = [bytes([number]) * 900 for number in range(6)]
    stream = p_data(pdv(1, 1, b"com"), pdv(1, 3, b"mand"))
    stream += b"".join(p_data(pdv(1, 0, part)) for part in parts[:3]) + p_data(
        pdv(1, 0, b""), pdv(1, 0, parts[3])
    )
    stream += p_data(pdv(1, 0, parts[4]), pdv(1, 2, parts[5])) + p_data(pdv(3, 2, b"other"))
    reader = PduReader(MAX_PDU)
    for start in range(0, len(stream), 4000):
        piece = stream[start : start + 4000]
        reader.get_buffer()[: len(piece)] = piece
        reader.buffer_updated(len(piece))
        units = [unit for unit in reader.units() if isinstance(unit, PDVFragment)]
        if not start:
            assert [(one.is_command, len(one.more)) for one in units] == [(True, 0), (True, 0), (False, 5)]
            gathered = b"".join((units[-1].data, *units[-1].more))
            assert len(gathered) > 3600
            assert b"".join(parts).startswith(gathered)
        else:
            assert [(one.context_id, one.is_last) for one in units] == [(1, True), (3, True)]


def test_exactly_the_announced_maximum_is_taken() -> None:
    units = joined(feed(PduReader(MAX_PDU), p_data(pdv(1, 2, bytes(MAX_PDU - 6)))))
    assert units == [(1, False, True, bytes(MAX_PDU - 6))]


def test_a_little_more_than_announced_is_taken_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    reader, stream = PduReader(MAX_PDU), p_data(pdv(1, 2, bytes(MAX_PDU)))
    units = joined(feed(reader, stream + stream))
    assert units == [(1, False, True, bytes(MAX_PDU))] * 2
    assert [record.message for record in caplog.records] == [
        "the peer sent a PDU of 4102 bytes, but this side announced a maximum of 4096; Quarry accepts it"
    ]


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x00" + bytes(9), id="type 0"),
        pytest.param(b"\x08\0\0\0\0\x04" + bytes(4), id="type 8"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="TLS hello"),
        pytest.param(struct.pack(">BxL", 4, 0), id="P-DATA of no bytes"),
        pytest.param(struct.pack(">BxL", 4, 1) + b"\0", id="P-DATA of 1 byte"),
        pytest.param(struct.pack(">BxL", 4, 0xFFFFFFFF), id="P-DATA of 4 GB"),
        pytest.param(struct.pack(">BxL", 4, 2 * MAX_PDU + 1), id="far more than announced"),
        pytest.param(struct.pack(">BxL", 1, 0), id="association request of no bytes"),
        pytest.param(struct.pack(">BxL", 1, 0xFFFFFFFF), id="association request of 4 GB"),
        pytest.param(struct.pack(">BxL", 1, MAX_CONTROL_PDU + 1), id="association request too long"),
        pytest.param(struct.pack(">BxL", 5, 5) + bytes(5), id="release of 5 bytes"),
        pytest.param(struct.pack(">BxL", 7, 0), id="abort of no bytes"),
        pytest.param(struct.pack(">BxLLBB", 4, 10, 1, 1, 0) + bytes(4), id="PDV of 1 byte"),
        pytest.param(struct.pack(">BxLLBB", 4, 10, 0, 1, 0) + bytes(4), id="PDV of no bytes"),
        pytest.param(struct.pack(">BxLLBB", 4, 10, 7, 1, 0) + bytes(4), id="PDV longer than its PDU"),
        pytest.param(struct.pack(">BxLLBB", 4, 10, 0xFFFFFFFF, 1, 0) + bytes(4), id="PDV of 4 GB"),
        pytest.param(struct.pack(">BxLLBB", 4, 10, 4, 1, 0) + bytes(4), id="bytes after the last PDV"),
    ],
)
def test_what_is_not_a_pdu_is_an_error_whatever_the_split(stream: bytes) -> None:
    for size in (1, len(stream)):
        reader = PduReader(MAX_PDU)
        with pytest.raises(RemoteProtocolError):
            for start in range(0, len(stream), size):
                list(feed(reader, stream[start : start + size]))


@given(st.binary(max_size=2000))
def test_no_bytes_raise_anything_else(stream: bytes) -> None:
    try:
        list(feed(PduReader(MAX_PDU), stream))
    except RemoteProtocolError:
        pass


@given(st.integers(8, 300), st.binary(min_size=1, max_size=200), st.binary(max_size=2000))
def test_what_is_encoded_honours_the_peers_maximum_and_reads_back(
    max_pdu: int, command: bytes, dataset: bytes
) -> None:
    stream = b"".join(pdu.encode_message(7, command, dataset, max_pdu))
    units = joined(feed(PduReader(max_pdu), stream))
    assert units[0] == (7, True, True, command)
    assert units[1:] == ([(7, False, True, dataset)] if dataset else [])


def test_a_message_is_one_piece_unless_it_is_large() -> None:
    assert len(list(pdu.encode_message(1, b"c" * 100, b"d" * 500_000, 16384))) == 1
    pieces = list(pdu.encode_message(1, b"c" * 100, b"d" * 5_000_000, 0))
    assert len(pieces) > 1
    assert max(map(len, pieces)) < 3_000_000
