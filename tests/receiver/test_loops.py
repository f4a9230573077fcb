"""The receiver's loop survives what a poor machine and a rude neighbour do to it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dicom_quarry.errors import ReceiverEnded
from dicom_quarry.model import AE
from dicom_quarry.receiver import session as sessions
from dicom_quarry.receiver.server import Receiver, ReceiverLimits, SenderRejected
from dicom_quarry.wire import dimse
from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.negotiation import AssociateAccept, AssociateRequest, propose_contexts
from tests.peers.process import wait_for
from tests.receiver.conftest import Make
from tests.receiver.helpers import CT, EXPLICIT, IMPLICIT, MemorySink, RawPeer, echo


@pytest.fixture
def soon_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_SILENT_BETWEEN", 0.05)
    monkeypatch.setattr(sessions, "_SILENT_WITHIN_MESSAGE", 0.05)


@pytest.fixture
def peers() -> Iterator[Callable[..., RawPeer]]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(RawPeer(*arguments))


# ---- idle associations


def idle_ones(receiver: Receiver) -> int:
    return sum(one.spare_seconds(time.monotonic()) >= 0 for one in tuple(receiver._associated))


def test_the_longest_idle_association_gives_way(
    make: Make, soon_spare: None, peers: Callable[..., RawPeer]
) -> None:
    receiver = make(limits=ReceiverLimits(max_associations=2))
    oldest, younger, archive = (peers(receiver.port) for _ in range(3))
    oldest.associate()
    wait_for(lambda: idle_ones(receiver) == 1, "the oldest to be idle")
    younger.associate()
    wait_for(lambda: idle_ones(receiver) == 2, "the younger one to be idle")
    archive.associate()
    assert oldest.is_closed()
    for peer in (younger, archive):
        assert peer.store(b"x").status == dimse.SUCCESS
    assert receiver.stats.gave_way == 1


def test_64_idle_associations_of_this_computer_lock_nobody_out(make: Make, sink: MemorySink) -> None:
    receiver = make()
    with ExitStack() as stack:
        for number in range(64):
            stack.enter_context(RawPeer(receiver.port, f"127.0.0.{2 + number % 2}")).associate()
        archive = stack.enter_context(RawPeer(receiver.port))
        archive.associate()
        assert archive.store(b"x").status == dimse.SUCCESS


def test_a_message_that_was_announced_gives_way_too(
    make: Make, soon_spare: None, peers: Callable[..., RawPeer]
) -> None:
    receiver = make(limits=ReceiverLimits(max_per_peer=1))
    silent = peers(receiver.port)
    silent.associate()
    silent.send(silent.message(3, dimse.c_store_rq(1, CT, "1.2.3")))
    archive = peers(receiver.port)
    archive.associate()
    assert archive.store(b"x").status == dimse.SUCCESS


def test_the_address_with_the_most_associations_gives_way_first(
    make: Make, soon_spare: None, peers: Callable[..., RawPeer]
) -> None:
    receiver = make(limits=ReceiverLimits(max_associations=3))
    archive = peers(receiver.port)
    archive.associate()
    for _ in range(2):
        peers(receiver.port, "127.0.0.2").associate()
    peers(receiver.port, "127.0.0.3").associate()
    assert archive.store(b"x").status == dimse.SUCCESS, "it was idle for longer, but alone"


def test_none_gives_way_while_all_are_busy(
    make: Make, sink: MemorySink, monkeypatch: pytest.MonkeyPatch, peers: Callable[..., RawPeer]
) -> None:
    monkeypatch.setattr("dicom_quarry.receiver.server._GIVE_WAY_TIMEOUT", 0.2)
    monkeypatch.setattr(sessions, "_SILENT_BETWEEN", 0.0)
    refused: list[SenderRejected] = []
    receiver = make(limits=ReceiverLimits(max_associations=1), on_event=refused.append)
    busy, release = threading.Event(), threading.Event()
    sink.on_commit = lambda: busy.set() or release.wait(30)  # type: ignore[func-returns-value]
    peer, other = peers(receiver.port), peers(receiver.port)
    peer.associate()
    peer.send(peer.message(3, dimse.c_store_rq(1, CT, "1.2.3"), b"x"))
    assert busy.wait(30)
    contexts = propose_contexts([(CT, [EXPLICIT])])
    assert other.request(AssociateRequest("QUARRY", "PACS", contexts, 16384)) == Rejection(2, 3, 2)
    assert [event.transient for event in refused] == [True]
    release.set()
    assert peer.response().status == dimse.SUCCESS


def test_c_echo_alone_is_outside_the_count_and_has_a_short_limit(
    make: Make, peers: Callable[..., RawPeer]
) -> None:
    receiver = make(limits=ReceiverLimits(max_associations=1, max_echo=2, echo_idle_timeout=0.2))
    archive = peers(receiver.port)
    archive.associate()
    echoes = [peers(receiver.port) for _ in range(3)]
    for peer in echoes:
        assert isinstance(peer.associate((dimse.VERIFICATION, [IMPLICIT])), AssociateAccept)
    assert receiver.stats.open_associations == 1
    for peer in echoes:
        assert peer.is_closed()
    assert archive.store(b"x").status == dimse.SUCCESS


def test_the_kernel_probes_silent_peers(make: Make, peers: Callable[..., RawPeer]) -> None:
    peer = peers(make().port)
    peer.associate()
    port = peer.sock.getsockname()[1]
    shown = subprocess.run(["ss", "-tno"], capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if f":{port} " in line and "ESTAB" in line]
    if not lines:
        pytest.skip("ss does not show the connections here")
    assert any("timer:(keepalive" in line for line in lines)


# ---- no threads, files or memory


def test_a_thread_that_cannot_be_started_costs_one_connection_at_most(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, refused = make(), iter(range(6))
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "association" and next(refused, None) is not None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr("dicom_quarry.receiver.server._THREAD_TIMEOUT", 0.2)
    monkeypatch.setattr(threading.Thread, "start", start_late)

    def is_served() -> bool:
        try:
            return echo(receiver.port)
        except Exception:  # noqa: BLE001 - the connection was closed
            return False

    wait_for(is_served, "the receiver to serve again")
    assert receiver.stats.errors > 0
    receiver.raise_if_ended()


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), KeyError("x")]
)
@pytest.mark.parametrize("logs", [True, False], ids=["", "and a log handler raises"])
def test_an_error_of_accept_ends_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, error: Exception, logs: bool
) -> None:
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda _: 1 / 0)
    times = iter(range(5))
    accept = socket.socket.accept

    def fail(sock: socket.socket) -> object:
        if next(times, None) is not None:
            raise error
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail)
    if not logs:
        logging.getLogger("dicom_quarry").addHandler(handler)
    try:
        assert all(echo(receiver.port) for _ in range(3))
        wait_for(lambda: receiver.stats.errors == 5, "five errors")
    finally:
        logging.getLogger("dicom_quarry").removeHandler(handler)


def test_a_full_table_of_files_is_relieved_by_those_that_are_idle(
    make: Make, soon_spare: None, monkeypatch: pytest.MonkeyPatch, peers: Callable[..., RawPeer]
) -> None:
    receiver = make()
    idle = peers(receiver.port)
    idle.associate()
    accept = socket.socket.accept

    def fail(sock: socket.socket) -> object:
        if receiver.stats.open_associations:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fail)
    assert echo(receiver.port)
    assert echo(receiver.port)
    assert idle.is_closed()


def test_the_end_of_the_loop_is_not_silent(sink: MemorySink) -> None:
    receiver = Receiver(AE("QUARRY", "127.0.0.1", 0), sink)
    receiver.start()
    assert receiver._listener is not None
    receiver._listener.shutdown(socket.SHUT_RDWR)  # as if the kernel had taken the port away

    def has_ended() -> bool:
        try:
            receiver.raise_if_ended()
        except ReceiverEnded as error:
            assert "ended by itself" in str(error)
            return True
        return False

    try:
        wait_for(has_ended, "the end to be reported")
    finally:
        receiver.stop(0.0)
