"""Admission, limits, statuses, start and stop of the receiver."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from ipaddress import ip_network

import pytest

from dicom_quarry.errors import InstanceRefused, OutOfSpace, Rejected, StartError
from dicom_quarry.model import AE
from dicom_quarry.receiver.server import AccessPolicy, Receiver, SenderRejected
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Aborted, Rejection
from dicom_quarry.wire.negotiation import AssociateAccept, AssociateRequest, ContextResult, propose_contexts
from dicom_quarry.wire.requestor import Requestor
from tests.peers.process import wait_for
from tests.receiver.conftest import Make
from tests.receiver.helpers import CT, EXPLICIT, IMPLICIT, MemorySink, RawPeer, echo

# ---- statuses


def test_success_is_answered_only_after_the_commit(receiver: Receiver, sink: MemorySink) -> None:
    may_commit, committing = threading.Event(), threading.Event()

    def commit() -> None:
        committing.set()
        assert may_commit.wait(30)

    sink.on_commit = commit
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(peer.message(3, dimse.c_store_rq(1, CT, "1.2.3"), b"data"))
        assert committing.wait(30)
        peer.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.response()
        peer.sock.settimeout(30)
        may_commit.set()
        assert peer.response().status == dimse.SUCCESS
    assert receiver.stats.instances == 1
    assert receiver.stats.bytes == 4


def raiser(error: Exception) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("where", ["on_begin", "on_write", "on_commit"])
@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (InstanceRefused("not requested", status=0x0124), 0x0124, "not requested"),
        (OutOfSpace("the disk is full"), 0xA700, "the disk is full"),
        (InstanceRefused("x" * 100, status=0), 0x0110, "x" * 64),
        (OSError(5, "Input/output error", "/data/DOE^JOHN/1.dcm"), 0x0110, "processing failure"),
        (ValueError("DOE^JOHN"), 0x0110, "processing failure"),
    ],
)
def test_every_failure_of_the_sink_becomes_a_status(
    receiver: Receiver,
    sink: MemorySink,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: Exception,
    status: int,
    comment: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    setattr(sink, where, raiser(error))
    with RawPeer(receiver.port) as peer:
        peer.associate()
        answer = peer.store(bytes(300_000), message_id=9)
        assert (answer.status, answer.error_comment) == (status, comment)
        assert (answer.message_id_responded_to, answer.affected_sop_instance) == (9, "1.2.3")
        setattr(sink, where, lambda: None)
        assert peer.store(b"good", "1.2.4").status == dimse.SUCCESS
    assert [arrival.sop_uid for arrival, _ in sink.committed] == ["1.2.4"]
    assert len(sink.aborted) == (0 if where == "on_begin" else 1)
    assert receiver.stats.rejected_instances == 1
    assert "DOE" not in caplog.text


def test_an_instance_has_its_sender(receiver: Receiver, sink: MemorySink) -> None:
    with RawPeer(receiver.port, source="127.0.0.9") as peer:
        peer.associate(calling="ARCHIVE")
        peer.store(b"data", "1.2.3.4")
    (arrival,) = sink.arrivals
    assert (arrival.sop_class, arrival.sop_uid, arrival.transfer_syntax) == (CT, "1.2.3.4", EXPLICIT)
    assert (arrival.calling_ae, arrival.called_ae, arrival.peer) == ("ARCHIVE", "QUARRY", "127.0.0.9")


def test_an_empty_dataset_and_a_very_long_uid_pass(receiver: Receiver, sink: MemorySink) -> None:
    long_uid = "1." + "2" * 100
    with RawPeer(receiver.port) as peer:
        peer.associate()
        peer.send(peer.message(3, dimse.c_store_rq(1, CT, long_uid)))
        peer.send(b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x03\x02")
        assert peer.response().status == dimse.SUCCESS
    assert sink.committed[0][0].sop_uid == long_uid
    assert sink.committed[0][1] == b""


# ---- admission


def associate(
    port: int, *, calling: str = "PACS", called: str = "QUARRY", source: str = "127.0.0.1"
) -> object:
    request = AssociateRequest(
        called, calling, propose_contexts([(dimse.VERIFICATION, [IMPLICIT]), (CT, [IMPLICIT])]), 0
    )
    with RawPeer(port, source) as peer:
        answer = peer.request(request)
        if isinstance(answer, Rejection):
            return answer
        assert isinstance(answer, AssociateAccept)
        return [result.result for result in answer.results]


BOTH = [ContextResult.ACCEPTED, ContextResult.ACCEPTED]
ECHO_ONLY = [ContextResult.ACCEPTED, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED]


def test_only_our_own_title_by_default(make: Make) -> None:
    refused: list[SenderRejected] = []
    receiver = make(on_event=refused.append)
    assert associate(receiver.port) == BOTH
    assert associate(receiver.port, called="OTHER") == Rejection(1, 1, 7)
    (event,) = refused
    assert (event.address, event.calling, event.called, event.transient) == (
        "127.0.0.1",
        "PACS",
        "OTHER",
        False,
    )
    assert receiver.stats.rejected_associations == 1
    assert associate(make(access_policy=AccessPolicy()).port, called="OTHER") == BOTH


# A test on loopback: a network that holds none of it stands for a foreign sender's.
def test_a_known_title_from_an_unknown_address_may_only_echo_on_this_computer(make: Make) -> None:
    receiver = make(access_policy=AccessPolicy(networks=(ip_network("127.0.0.9"),)))
    assert associate(receiver.port, source="127.0.0.9") == BOTH
    assert associate(receiver.port, source="127.0.0.8") == ECHO_ONLY


def test_an_unknown_title_from_a_good_address(make: Make) -> None:
    receiver = make(access_policy=AccessPolicy(calling=frozenset({"PACS"})))
    assert associate(receiver.port) == BOTH
    assert associate(receiver.port, calling="STRANGER") == ECHO_ONLY


@pytest.mark.parametrize(
    ("address", "calling", "rejection"),
    [
        ("10.1.2.3", "PACS", None),
        ("::ffff:10.1.2.3", "PACS", None),
        ("10.1.2.3", "STRANGER", Rejection(1, 1, 3)),
        ("10.9.9.9", "PACS", Rejection(1, 1, 1)),
        ("fe80::1%eth0", "PACS", Rejection(1, 1, 1)),
    ],
)
def test_foreign_senders(address: str, calling: str, rejection: Rejection | None) -> None:
    admission = AccessPolicy(calling=frozenset({"PACS"}), networks=(ip_network("10.1.2.0/24"),))
    request = AssociateRequest("QUARRY", calling, propose_contexts([(CT, [IMPLICIT])]), 0)
    decision = admission.evaluate(request, address)
    assert getattr(decision, "rejection", None) == rejection


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_network_of_mapped_addresses_is_that_of_its_ipv4_addresses(address: str) -> None:
    policy = AccessPolicy(networks=(ip_network("::ffff:10.1.2.0/120"),))
    request = AssociateRequest("QUARRY", "PACS", propose_contexts([(CT, [IMPLICIT])]), 0)
    assert policy.check_store(request, address) is None
    assert policy.check_store(request, "10.1.3.3") is not None
    assert not policy.admits_ipv6


def test_protocol_version_and_application_context(receiver: Receiver) -> None:
    contexts = propose_contexts([(CT, [IMPLICIT])])
    for changes, rejection in (
        ({"application_context": "1.2.3"}, Rejection(1, 1, 2)),
        ({"protocol_version": 2}, Rejection(1, 2, 2)),
    ):
        request = AssociateRequest("QUARRY", "PACS", contexts, 0, **changes)
        body = bytearray(RawPeer(receiver.port).association.request(request))
        body[7] = request.protocol_version
        at = body.index(b"1.2.840.10008.3.1.1.1")
        if "application_context" in changes:
            body[at : at + 21] = b"1.2.840.10008.3.1.1.9"
        with RawPeer(receiver.port) as peer:
            peer.association.request(request)
            peer.send(bytes(body))
            assert peer.next_event() == rejection


# ---- limits


def test_several_associations_at_once(receiver: Receiver, sink: MemorySink) -> None:
    meeting = threading.Barrier(4)
    sink.on_commit = lambda: meeting.wait(30)  # passes only if all four are served at once

    def send(number: int) -> None:
        with RawPeer(receiver.port) as peer:
            peer.associate()
            for turn in range(5):
                assert peer.store(bytes(100_000), f"1.{number}.{turn}").status == dimse.SUCCESS

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({arrival.sop_uid for arrival, _ in sink.committed}) == 20


# ---- start and stop


def test_a_port_in_use_is_one_sentence_that_names_the_holder(sink: MemorySink) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        port = int(holder.stdout.readline())
        with pytest.raises(StartError, match=rf"port {port} is held by python\S* \(process {holder.pid}\)"):
            Receiver(AE("QUARRY", "127.0.0.1", port), sink).start()
        holder.communicate()


def test_an_address_that_is_not_ours(sink: MemorySink) -> None:
    with pytest.raises(StartError, match="not an address of this computer"):
        Receiver(AE("QUARRY", "192.0.2.1", 0), sink).start()


def test_all_interfaces_where_no_host_is_given(sink: MemorySink) -> None:
    receiver = Receiver(AE("QUARRY", "", 0), sink)
    receiver.start()
    assert echo(receiver.port)
    receiver.stop()


def _connects(port: int, host: str) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this computer has no IPv6")
@pytest.mark.parametrize(
    ("host", "networks", "reached"),
    [
        ("", ("10.0.0.0/8",), ["127.0.0.1"]),
        ("", ("10.0.0.0/8", "::1/128"), ["127.0.0.1", "::1"]),
        ("::", (), ["127.0.0.1", "::1"]),
        ("::1", (), ["::1"]),
        ("127.0.0.1", ("::1/128",), ["127.0.0.1"]),
    ],
)
def test_ipv6_is_listened_on_where_a_sender_has_it(
    sink: MemorySink, host: str, networks: tuple[str, ...], reached: list[str]
) -> None:
    refused: list[SenderRejected] = []
    policy = AccessPolicy(networks=tuple(map(ip_network, networks)))
    receiver = Receiver(AE("QUARRY", host, 0), sink, access_policy=policy, on_event=refused.append)
    receiver.start()
    try:
        assert [one for one in ("127.0.0.1", "::1") if _connects(receiver.port, one)] == reached
        if reached == ["127.0.0.1", "::1"] and networks:
            assert associate(receiver.port) == ECHO_ONLY
            assert [one.address for one in refused] == ["127.0.0.1"], "not its IPv4-mapped address"
    finally:
        receiver.stop(0.0)


def test_stop_lets_an_instance_in_flight_arrive(make: Make, sink: MemorySink) -> None:
    receiver = make()
    with RawPeer(receiver.port) as busy, RawPeer(receiver.port) as idle, RawPeer(receiver.port):
        busy.associate()
        idle.associate()
        message = busy.message(3, dimse.c_store_rq(1, CT, "1.2.3"), bytes(100_000))
        busy.send(message[:50_000])
        wait_for(lambda: bool(sink.arrivals), "the instance to begin")
        stopper = threading.Thread(target=receiver.stop, args=(60,))
        stopper.start()
        assert isinstance(idle.next_event(), Aborted)
        busy.send(message[50_000:])
        assert busy.response().status == dimse.SUCCESS
        assert isinstance(busy.next_event(), Aborted)
        stopper.join()
    assert len(sink.committed) == 1
    with pytest.raises(ConnectionRefusedError):
        RawPeer(receiver.port)


def test_stop_cuts_what_does_not_end_within_the_grace(make: Make, sink: MemorySink) -> None:
    receiver = make()
    with RawPeer(receiver.port) as peer:
        peer.associate()
        message = peer.message(3, dimse.c_store_rq(1, CT, "1.2.3"), bytes(100_000))
        peer.send(message[:50_000])
        wait_for(lambda: bool(sink.arrivals), "the instance to begin")
        receiver.stop(0.1)
        assert peer.is_closed()
    assert not sink.committed
    assert len(sink.aborted) == 1


def test_stop_leaves_no_threads_and_may_be_repeated(sink: MemorySink) -> None:
    before = threading.active_count()
    receiver = Receiver(AE("QUARRY", "127.0.0.1", 0), sink)
    receiver.start()
    assert echo(receiver.port)
    receiver.stop()
    receiver.stop()
    wait_for(lambda: threading.active_count() == before, "its threads to end")
    Receiver(AE("QUARRY", "127.0.0.1", 0), sink).stop()  # never started


def test_the_requestor_reads_our_rejection(receiver: Receiver) -> None:
    with pytest.raises(Rejected, match="does not answer to the AE title WRONG") as caught:
        Requestor.connect(
            AE("WRONG", "127.0.0.1", receiver.port),
            calling="PACS",
            contexts=[(dimse.VERIFICATION, [IMPLICIT])],
        )
    assert caught.value.permanent
