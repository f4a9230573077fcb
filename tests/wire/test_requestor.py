"""The requestor against real and scripted acceptors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz import peers
from pydicom.dataset import Dataset
from pynetdicom import AE as Pynetdicom
from pynetdicom import evt

from dicom_quarry.errors import ConnectionLost, Rejected, Unreachable
from dicom_quarry.model import AE
from dicom_quarry.wire import dimse, negotiation, pdu
from dicom_quarry.wire.association import Aborted, Association, Event, Rejection, ReleaseRequested
from dicom_quarry.wire.dimse import VERIFICATION, Command, CommandField
from dicom_quarry.wire.negotiation import AcceptorPolicy, AssociateRequest
from dicom_quarry.wire.pdu import PduType, PDVFragment
from dicom_quarry.wire.requestor import Requestor
from tests.peers.dcmtk import Storescp
from tests.peers.fixtures import Start
from tests.peers.process import free_port, wait_for

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
CONTEXTS = [(VERIFICATION, [IMPLICIT]), (FIND, [EXPLICIT, IMPLICIT])]


def is_known(uid: str) -> bool:
    return True


class Acceptor:
    """One accepted connection, answered by hand."""

    def __init__(self, sock: socket.socket, max_pdu: int) -> None:
        self.sock = sock
        self.max_pdu = max_pdu
        self.association = Association(max_pdu=max_pdu, is_requestor=False)

    def next_event(self) -> Event | None:
        while True:
            for event in self.association.events():
                return event
            try:
                count = self.sock.recv_into(self.association.reader.get_buffer())
            except ConnectionResetError:
                return None
            if not count:
                return None
            self.association.reader.buffer_updated(count)

    def accept(self) -> None:
        request = self.next_event()
        assert isinstance(request, AssociateRequest)
        policy = AcceptorPolicy(self.max_pdu, accepts=is_known)
        self.sock.sendall(self.association.accept(policy.answer(request)))

    def message(self, command: Command, dataset: bytes = b"", context_id: int = 1) -> bytes:
        return b"".join(self.association.send(context_id, dimse.encode(command), dataset))


@contextmanager
def scripted(script: Callable[[Acceptor], object], max_pdu: int = 0) -> Iterator[AE]:
    """Listens, and runs the script on the first connection; its failure is the test's."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                sock.settimeout(30)
                try:
                    script(Acceptor(sock, max_pdu))
                except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
                    failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        yield AE("ARCHIVE", "127.0.0.1", server.getsockname()[1])
        thread.join(30)
    if failures:
        raise failures[0]


def connect(peer: AE, **options: float) -> Requestor:
    return Requestor.connect(peer, calling="QUARRY", contexts=CONTEXTS, **options)  # type: ignore[arg-type]


# ---- real peers


@pytest.mark.archive
def test_echo_and_release_with_storescp(start: Start, tmp_path: Path) -> None:
    server = start(Storescp(tmp_path, extra=["-v"]))
    requestor = Requestor.connect(
        server.ae, calling="QUARRY", contexts=[(VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT, IMPLICIT])]
    )
    assert requestor.accepted == {VERIFICATION: (1, IMPLICIT), CT: (3, EXPLICIT)}
    for number in range(3):
        requestor.send(dimse.c_echo_rq(number), context_id=1)
        message = requestor.receive(30)
        assert message and message.command.field is CommandField.C_ECHO_RSP
        assert message.command.message_id_responded_to == number
    assert requestor.receive(0.0) is None
    requestor.release()
    assert not requestor.is_alive
    wait_for(lambda: "Association Release" in server.log_text(), "the acceptor to get the release")


@pytest.mark.parametrize("max_pdu", [0, 128, 16384])
def test_find_with_pynetdicom(max_pdu: int) -> None:
    queries: list[Dataset] = []

    def handle(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        queries.append(event.identifier)
        for number in range(3):
            answer = Dataset()
            answer.StudyInstanceUID = f"1.2.{number}"
            answer.StudyComments = "x" * 1000
            yield 0xFF00, answer

    ae = Pynetdicom("PYNETDICOM")
    ae.maximum_pdu_size = max_pdu
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, handle)])
    assert server is not None and server.socket is not None
    peer = AE("PYNETDICOM", "127.0.0.1", server.socket.getsockname()[1])
    try:
        requestor = connect(peer)
        context_id, syntax = requestor.accepted[FIND]
        assert VERIFICATION not in requestor.accepted
        identifier = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
        assert syntax in (IMPLICIT, EXPLICIT)
        if syntax == EXPLICIT:
            identifier = b"\x08\x00\x52\x00CS\x06\x00STUDY "
        requestor.send(dimse.c_find_rq(7, FIND), identifier, context_id=context_id)
        messages = [requestor.receive(30) for _ in range(4)]
        assert [message and message.command.status for message in messages] == [0xFF00] * 3 + [0]
        assert [bool(message and message.dataset) for message in messages] == [True] * 3 + [False]
        requestor.release()
    finally:
        server.shutdown()
    assert [dataset.QueryRetrieveLevel for dataset in queries] == ["STUDY"]


# ---- what can go wrong while connecting


def test_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} refused the connection"):
        connect(AE("ARCHIVE", "127.0.0.1", port))


def test_an_unknown_name() -> None:
    with pytest.raises(Unreachable, match=r"the host name archive\.invalid is unknown"):
        connect(AE("ARCHIVE", "archive.invalid", 104))


def test_a_port_that_sends_nothing() -> None:
    with scripted(lambda peer: peer.next_event() and peer.next_event()) as peer:  # noqa: SIM117
        with pytest.raises(Unreachable, match=r"did not answer the association request within 0\.2 s"):
            connect(peer, answer_timeout=0.2)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "did not answer with DICOM"),
        (pdu.encode_abort(0, 0), "aborted instead of answering"),
        (pdu.encode_release(PduType.RELEASE_RQ), "did not answer with DICOM"),
    ],
)
def test_other_answers_than_an_answer(answer: bytes, sentence: str) -> None:
    def script(peer: Acceptor) -> None:
        peer.next_event()
        peer.sock.sendall(answer)

    with scripted(script) as peer, pytest.raises(Unreachable, match=sentence):
        connect(peer)


@pytest.mark.parametrize(
    ("rejection", "permanent", "words"),
    [
        (Rejection(1, 1, 3), True, "rejected the association: it does not know the calling AE title QUARRY"),
        (Rejection(1, 1, 7), True, "it does not answer to the AE title ARCHIVE"),
        (Rejection(1, 1, 1), True, "it gave no reason"),
        (Rejection(1, 2, 2), True, "version of the DICOM protocol"),
        (
            Rejection(2, 3, 2),
            False,
            "rejected the association for now: it has reached its limit of associations",
        ),
        (Rejection(2, 1, 2), False, "result 2, source 1, reason 2"),
        (Rejection(2, 9, 9), False, "the reason is not defined in DICOM"),
    ],
)
def test_rejections_are_explained(rejection: Rejection, permanent: bool, words: str) -> None:
    def script(peer: Acceptor) -> None:
        peer.next_event()
        peer.sock.sendall(peer.association.reject(rejection))

    with scripted(script) as peer, pytest.raises(Rejected, match=words) as caught:
        connect(peer)
    assert caught.value.permanent is permanent


# ---- what can go wrong later


def lost(script: Callable[[Acceptor], object]) -> str:
    """Associate, let the script run, and give the sentence with which the association is lost."""

    def run(peer: Acceptor) -> None:
        peer.accept()
        script(peer)

    with scripted(run) as peer:
        requestor = connect(peer)
        with pytest.raises(ConnectionLost) as caught:
            requestor.receive(30)
        assert not requestor.is_alive
        with pytest.raises(ConnectionLost):
            requestor.send(dimse.c_echo_rq(1), context_id=1)
        with pytest.raises(ConnectionLost):
            requestor.receive(0)
        requestor.release()
        requestor.abort()
    return str(caught.value)


def test_an_abort() -> None:
    assert "aborted the association" in lost(lambda peer: peer.sock.sendall(peer.association.abort()))


def test_a_cut_connection() -> None:
    assert "closed without a release" in lost(lambda peer: peer.sock.shutdown(socket.SHUT_RDWR))


def test_a_release_by_the_acceptor_is_confirmed() -> None:
    def script(peer: Acceptor) -> None:
        peer.sock.sendall(peer.association.release())
        assert type(peer.next_event()).__name__ == "Released"

    assert "released the association" in lost(script)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x02", id="dataset without command"),
        pytest.param(b"\x09\x00\x00\x00\x00\x04\x00\x00\x00\x00", id="unknown PDU"),
        pytest.param(b"".join(pdu.encode_message(9, b"x" * 20, b"", 0)), id="unknown context"),
    ],
)
def test_a_broken_protocol_is_answered_with_an_abort(data: bytes) -> None:
    def script(peer: Acceptor) -> None:
        peer.sock.sendall(data)
        assert isinstance(peer.next_event(), Aborted)

    assert "broke the protocol" in lost(script)


def test_an_endless_identifier_is_not_gathered() -> None:
    def script(peer: Acceptor) -> None:
        answer = Command(CommandField.C_FIND_RSP, status=0xFF00, has_dataset=True)
        peer.sock.sendall(peer.message(answer))
        piece = b"\x04\x00" + (100_006).to_bytes(4, "big") + (100_002).to_bytes(4, "big") + b"\x01\x00"
        try:
            while True:
                peer.sock.sendall(piece + bytes(100_000))
        except ConnectionError:
            pass

    assert "more than" in lost(script)


def test_pieces_of_a_message_over_several_receives() -> None:
    go_on = threading.Event()

    def script(peer: Acceptor) -> None:
        peer.accept()
        answer = Command(CommandField.C_FIND_RSP, 0, 5, has_dataset=True, status=0xFF00)
        message = peer.message(answer, b"0123456789") + peer.message(dimse.response(dimse.c_echo_rq(1), 0))
        peer.sock.sendall(message[:70])
        assert go_on.wait(30)
        peer.sock.sendall(message[70:])
        assert isinstance(peer.next_event(), ReleaseRequested)
        peer.sock.sendall(peer.association.confirm_release())

    with scripted(script) as peer:
        requestor = connect(peer)
        assert requestor.receive(0.1) is None
        go_on.set()
        first, second = requestor.receive(30), requestor.receive(30)
        assert first and second
        assert (first.dataset, first.command.message_id_responded_to) == (b"0123456789", 5)
        assert (second.dataset, second.command.field) == (b"", CommandField.C_ECHO_RSP)
        requestor.release()


def test_release_gives_up_on_a_peer_that_does_not_answer() -> None:
    def script(peer: Acceptor) -> None:
        peer.accept()
        assert isinstance(peer.next_event(), ReleaseRequested)
        assert isinstance(peer.next_event(), Aborted)

    with scripted(script) as peer:
        requestor = connect(peer)
        requestor.release(0.1)
        assert not requestor.is_alive


def test_abort_from_another_thread_wakes_the_reader() -> None:
    seen: list[Event | None] = []

    def script(peer: Acceptor) -> None:
        peer.accept()
        seen.append(peer.next_event())

    with scripted(script) as peer:
        requestor = connect(peer)
        losses: list[str] = []

        def read() -> None:
            try:
                requestor.receive(60)
            except ConnectionLost as error:
                losses.append(str(error))

        reader = threading.Thread(target=read)
        reader.start()
        requestor.abort()
        reader.join(30)
        assert not reader.is_alive()
        assert losses
    wait_for(lambda: bool(seen), "the acceptor to get it")
    assert isinstance(seen[0], Aborted)


def test_a_large_dataset_is_sent_within_the_peers_maximum() -> None:
    data = bytes(range(256)) * 12_000
    got = bytearray()

    def script(peer: Acceptor) -> None:
        peer.accept()
        while True:
            event = peer.next_event()
            assert isinstance(event, PDVFragment)
            if not event.is_command:
                got.extend(b"".join((event.data, *event.more)))
                if event.is_last:
                    return

    with scripted(script, max_pdu=1000) as peer:
        requestor = connect(peer)
        requestor.send(dimse.c_find_rq(1, FIND), data, context_id=3)
        wait_for(lambda: len(got) == len(data), "all of it")
        requestor.abort()
    assert bytes(got) == data


def test_an_answer_is_not_lost_though_the_peer_aborts_in_the_same_read() -> None:
    """DCMTK's tools, for one, may end the association right after the final response."""
    answer = AcceptorPolicy(0, accepts=lambda _: True).answer(peers.REQUEST)
    accept = pdu.encode_pdu(pdu.PduType.ASSOCIATE_AC, negotiation.encode_accept(answer))
    final = dimse.Command(dimse.CommandField.C_FIND_RSP, message_id_responded_to=1, status=0)
    response = b"".join(pdu.encode_message(3, dimse.encode(final), b"", 0))
    data = accept + response + pdu.encode_abort(0, 0)
    _, byte_by_byte = peers.request(data, 1, 5)
    _, in_one_read = peers.request(data, 0, 5)
    assert len(byte_by_byte) == len(in_one_read) == 1
