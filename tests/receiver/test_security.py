"""Hostile and broken senders, on the real socket.

After each of them the next C-ECHO is answered, and no instance counts as stored without its commit.
"""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from dicom_quarry.receiver.server import Receiver, ReceiverLimits
from dicom_quarry.wire import dimse, pdu
from dicom_quarry.wire.association import Aborted
from dicom_quarry.wire.negotiation import AssociateRequest, PresentationContext
from dicom_quarry.wire.pdu import PduType
from tests.peers.process import wait_for
from tests.receiver.conftest import Make
from tests.receiver.helpers import CT, EXPLICIT, IMPLICIT, MemorySink, RawPeer, echo, encoded

STORE = dimse.encode(dimse.c_store_rq(1, CT, "1.2.3"))


def pdv(control: int, data: bytes, *, context_id: int = 3, length: int | None = None) -> bytes:
    length = len(data) + 2 if length is None else length
    return struct.pack(">BxLLBB", PduType.P_DATA_TF, len(data) + 6, length, context_id, control) + data


def us(number: int, value: int) -> bytes:
    return struct.pack("<HHLH", 0, number, 2, value)


BAD_AT_ONCE = [
    pytest.param(b"\x08\0\0\0\0\x04\0\0\0\0", id="PDU type 8"),
    pytest.param(struct.pack(">BxL", 1, 0), id="length 0"),
    pytest.param(struct.pack(">BxL", 1, 1) + b"\0", id="length 1"),
    pytest.param(struct.pack(">BxL", 1, 0xFFFFFFFF), id="length FFFFFFFF"),
    pytest.param(struct.pack(">BxL", 4, 0xFFFFFFFF), id="P-DATA of length FFFFFFFF"),
    pytest.param(pdv(1, STORE), id="P-DATA before association"),
    pytest.param(pdu.encode_release(PduType.RELEASE_RQ), id="release before association"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: quarry\r\n\r\n", id="HTTP"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS hello"),
    pytest.param(struct.pack(">BxL", 1, 2_000_000) + bytes(1_000_000), id="1 MB of user identity"),
]

BAD_LATER = [
    pytest.param(pdv(1, STORE, length=len(STORE) + 100), id="PDV longer than its PDU"),
    pytest.param(pdv(1, STORE, length=0), id="PDV of length 0"),
    pytest.param(pdv(1, STORE, length=0xFFFFFFFF), id="PDV of length FFFFFFFF"),
    pytest.param(struct.pack(">BxL", 4, 0xFFFFFFFF), id="PDU of length FFFFFFFF"),
    pytest.param(struct.pack(">BxL", 4, 2 * 131072 + 1), id="PDU far longer than announced"),
    pytest.param(pdv(3, STORE, context_id=7), id="unknown context"),
    pytest.param(pdv(3, STORE, context_id=2), id="even context"),
    pytest.param(pdv(3, STORE, context_id=1), id="C-STORE under Verification"),
    pytest.param(pdv(3, STORE) + pdv(0, b"half") + pdv(3, STORE), id="a second command inside a dataset"),
    pytest.param(pdv(3, STORE) + pdv(2, b"data", context_id=1), id="dataset in another context"),
    pytest.param(pdv(2, b"data"), id="dataset without command"),
    pytest.param(pdv(1, bytes(60000)) + pdv(1, bytes(60000)), id="command without end"),
    pytest.param(pdv(3, b"\xff" * 100), id="command of rubbish"),
    pytest.param(pdv(3, dimse.encode(dimse.c_find_rq(1, CT)), context_id=1) + pdv(2, b""), id="C-FIND to us"),
    pytest.param(pdv(3, dimse.encode(dimse.response(dimse.c_store_rq(1, CT, "1"), 0))), id="a response"),
    pytest.param(struct.pack(">BxL", 1, 68) + bytes(68), id="second association request"),
    pytest.param(pdu.encode_release(PduType.RELEASE_RP), id="release response out of the blue"),
]


@pytest.mark.parametrize("data", BAD_AT_ONCE)
def test_not_an_association_request(receiver: Receiver, sink: MemorySink, data: bytes) -> None:
    with RawPeer(receiver.port) as peer:
        try:
            peer.send(data)
        except ConnectionError:  # cut before it had taken everything: as good an answer
            return
        assert peer.is_closed()
    assert echo(receiver.port)
    assert not sink.arrivals


@pytest.mark.parametrize("data", BAD_LATER)
def test_a_broken_message_aborts_the_association(receiver: Receiver, sink: MemorySink, data: bytes) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(data)
        assert isinstance(peer.next_event(), Aborted)
        assert peer.is_closed()
    assert echo(receiver.port)
    assert not sink.committed
    assert len(sink.aborted) == len(sink.arrivals)
    assert receiver.stats.instances == 0


@pytest.mark.parametrize(
    "contexts",
    [
        pytest.param([PresentationContext(2, CT, (IMPLICIT,))], id="even ID"),
        pytest.param([PresentationContext(1, CT, (IMPLICIT,))] * 2, id="repeated ID"),
        pytest.param(
            [PresentationContext(number % 256, CT, (IMPLICIT,)) for number in range(1, 401, 2)],
            id="200 contexts",
        ),
    ],
)
def test_bad_presentation_contexts(receiver: Receiver, contexts: list[PresentationContext]) -> None:
    with RawPeer(receiver.port) as peer:
        answer = peer.request(AssociateRequest("QUARRY", "PACS", tuple(contexts), 0))
        assert isinstance(answer, Aborted)
        assert peer.is_closed()
    assert echo(receiver.port)


def test_a_large_user_identity_is_tolerated(receiver: Receiver) -> None:
    request = AssociateRequest("QUARRY", "PACS", (PresentationContext(1, CT, (IMPLICIT,)),), 0)
    body = encoded(request)
    at = body.index(b"\x51\x00\x00\x04") - 4
    identity = struct.pack(">BxHBBH", 0x58, 60006, 1, 1, 60000) + bytes(60002)
    user = body[at + 4 :] + identity
    body = body[:at] + struct.pack(">BxH", 0x50, len(user)) + user
    with RawPeer(receiver.port) as peer:
        peer.association.request(request)
        peer.send(pdu.encode_pdu(PduType.ASSOCIATE_RQ, body))
        assert not isinstance(peer.next_event(), Aborted | None)


def test_a_missing_group_length_is_no_fault(receiver: Receiver, sink: MemorySink) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, STORE[12:]) + pdv(2, b"data"))
        assert peer.response().status == dimse.SUCCESS
    assert [data for _, data in sink.committed] == [b"data"]


def test_a_store_without_uid_or_dataset_is_answered_with_a_failure(
    receiver: Receiver, sink: MemorySink
) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, us(0x0100, 1) + us(0x0110, 8) + us(0x0800, 0)) + pdv(0, b"some") + pdv(2, b"data"))
        answer = peer.response()
        assert (answer.status, answer.message_id_responded_to) == (0xC000, 8)
        no_dataset = STORE.replace(us(0x0800, 1), us(0x0800, 0x0101))
        peer.send(pdv(3, no_dataset))
        assert peer.response().status == 0xC000
        assert peer.store(b"good").status == dimse.SUCCESS
    assert [data for _, data in sink.committed] == [b"good"]


@pytest.mark.parametrize("how", ["closed", "reset", "aborted", "released"])
def test_an_association_that_ends_midway_stores_nothing(
    receiver: Receiver, sink: MemorySink, how: str
) -> None:
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, STORE) + pdv(0, bytes(1000)))
        wait_for(lambda: bool(sink.arrivals), "the instance to begin")
        if how == "reset":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "aborted":
            peer.send(peer.association.abort())
        elif how == "released":
            peer.send(peer.association.release())
    wait_for(lambda: len(sink.aborted) == 1, "the writer's abort")
    wait_for(lambda: receiver.stats.open_associations == 0, "the end of the association")
    assert not sink.committed
    assert echo(receiver.port)


def test_a_dataset_announced_and_never_sent(make: Make, sink: MemorySink) -> None:
    receiver = make(limits=ReceiverLimits(stall_timeout=0.2))
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, STORE))
        assert peer.is_closed()
    assert len(sink.aborted) == 1
    assert echo(receiver.port)


def test_one_byte_at_a_time_is_too_slow(make: Make, sink: MemorySink) -> None:
    receiver = make(limits=ReceiverLimits(stall_timeout=0.5))
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, STORE))
        drip(peer, pdv(0, bytes(10000)))
        assert peer.is_closed()
    wait_for(lambda: len(sink.aborted) == 1, "the writer's abort")
    assert echo(receiver.port)


def test_an_association_request_one_byte_at_a_time(make: Make) -> None:
    receiver = make(limits=ReceiverLimits(request_timeout=0.5))
    with RawPeer(receiver.port) as peer:
        drip(peer, struct.pack(">BxL", 1, 100_000) + bytes(100_000))
        assert peer.is_closed()
    assert echo(receiver.port)


def drip(peer: RawPeer, data: bytes) -> None:
    pause = threading.Event()
    for byte in data:
        try:
            peer.send(bytes((byte,)))
        except ConnectionError:
            return
        pause.wait(0.005)
    raise AssertionError("no check failed")


def test_a_silent_connection_is_closed(make: Make) -> None:
    receiver = make(limits=ReceiverLimits(request_timeout=0.2))
    with RawPeer(receiver.port) as peer:
        assert peer.is_closed()


def test_an_idle_association_is_kept_by_default(make: Make) -> None:
    with RawPeer(make(limits=ReceiverLimits(idle_timeout=0.2)).port) as peer:
        peer.associate()
        assert isinstance(peer.next_event(), Aborted)
    with RawPeer(make(limits=ReceiverLimits(request_timeout=0.1, stall_timeout=0.1)).port) as peer:
        peer.associate()
        peer.sock.settimeout(1.5)
        with pytest.raises(TimeoutError):
            peer.next_event()
        peer.sock.settimeout(30)
        assert peer.store(b"still here").status == dimse.SUCCESS


def test_a_thousand_idle_connections_block_no_sender(receiver: Receiver) -> None:
    idle = [socket.create_connection(("127.0.0.1", receiver.port), 30) for _ in range(1000)]
    try:
        assert echo(receiver.port)
        running = sum(thread.name == "association" for thread in threading.enumerate())
        assert running < 200
    finally:
        for sock in idle:
            sock.close()


def test_200_mb_that_are_refused_are_drained_without_being_kept(receiver: Receiver, sink: MemorySink) -> None:
    sink.on_begin = refuse
    piece = pdv(0, bytes(131000))
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(pdv(3, STORE))
        for _ in range(1600):
            peer.send(piece)
        peer.send(pdv(2, b""))
        assert peer.response().status == 0x0124
        sink.on_begin = lambda: None
        assert peer.store(b"good", "1.2.4").status == dimse.SUCCESS
    assert [arrival.sop_uid for arrival, _ in sink.committed] == ["1.2.4"]


def refuse() -> None:
    from dicom_quarry.errors import InstanceRefused

    raise InstanceRefused("this study was not requested", status=0x0124)


def test_the_writer_gets_views_not_whole_instances(receiver: Receiver, sink: MemorySink) -> None:
    data = bytes(range(256)) * 40000
    with RawPeer(receiver.port) as peer:
        peer.associate((CT, [EXPLICIT]), (CT, [EXPLICIT]))
        assert peer.store(data).status == dimse.SUCCESS
    assert sink.committed[0][1] == data
    assert sink.largest_write <= 131072
