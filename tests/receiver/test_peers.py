"""Real senders. What the sink has is byte for byte what crossed the wire, judged by another reader."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.filereader import _read_file_meta_info
from pynetdicom import AE as Pynetdicom
from pynetdicom import build_role
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from dicom_quarry.model import AE
from dicom_quarry.receiver.server import Receiver
from dicom_quarry.wire import dimse
from tests.peers.corpus import CT, Corpus, Item
from tests.peers.relay import Relay
from tests.receiver.helpers import IMPLICIT, MemorySink, RawPeer

pytestmark = pytest.mark.archive


@pytest.fixture
def relay(receiver: Receiver) -> Relay:
    return Relay(AE("QUARRY", "127.0.0.1", receiver.port))


def run(*command: str | Path) -> None:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_as_heard(relay: Relay, sink: MemorySink, count: int) -> None:
    stored = {arrival.sop_uid: (arrival.transfer_syntax, data) for arrival, data in sink.committed}
    assert len(sink.committed) == len(stored) == count
    assert stored == relay.stored()


def real(corpus: Corpus, syntaxes: Sequence[str] = ()) -> list[Item]:
    return [
        item
        for item in corpus.items
        if item.path.name.startswith("real") and (not syntaxes or item.transfer_syntax in syntaxes)
    ]


def test_echoscu(receiver: Receiver) -> None:
    run("echoscu", "-aec", "QUARRY", "127.0.0.1", str(receiver.port))
    run("echoscu", "--propose-pc", "128", "-aec", "QUARRY", "127.0.0.1", str(receiver.port))


@pytest.mark.parametrize("pdu", ["4096", "131072"])
def test_storescu(relay: Relay, sink: MemorySink, corpus: Corpus, pdu: str) -> None:
    items = corpus.uncompressed().items[:60]
    with relay:
        options = ["-R", "-pdu", pdu, "-aec", "QUARRY", "127.0.0.1", str(relay.port)]
        run("storescu", *options, *[item.path for item in items])
        assert_as_heard(relay, sink, len(items))


def test_dcmsend_in_every_transfer_syntax_of_the_corpus(
    relay: Relay, sink: MemorySink, corpus: Corpus
) -> None:
    items = real(corpus)
    with relay:
        options = ["--decompress-never", "--no-uid-checks", "-aec", "QUARRY", "127.0.0.1", str(relay.port)]
        run("dcmsend", *options, *[item.path for item in items])
        assert_as_heard(relay, sink, len(items))
    assert len({arrival.transfer_syntax for arrival, _ in sink.committed}) >= 8


def test_gdcmscu(relay: Relay, sink: MemorySink, corpus: Corpus) -> None:
    items = corpus.uncompressed().items[-5:]
    with relay:
        options = ["--store", "--call", "QUARRY", "127.0.0.1", str(relay.port)]
        # Not by its return code: gdcm 3.0.21 crashes after its release, whoever the receiver is.
        subprocess.run(
            ["gdcmscu", *options, *map(str, [item.path for item in items])],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert_as_heard(relay, sink, len(items))


def test_pynetdicom(relay: Relay, sink: MemorySink, corpus: Corpus) -> None:
    items = real(corpus)[:40]
    sender = Pynetdicom("PYNETDICOM")
    for abstract, transfer in {(item.sop_class, item.transfer_syntax) for item in items}:
        sender.add_requested_context(abstract, transfer)
    with relay:
        association = sender.associate("127.0.0.1", relay.port, ae_title="QUARRY")
        assert association.is_established
        statuses = [association.send_c_store(item.path).Status for item in items]
        association.release()
        assert statuses == [0] * len(items)
        assert_as_heard(relay, sink, len(items))


def test_every_real_file_byte_for_byte(receiver: Receiver, sink: MemorySink, corpus: Corpus) -> None:
    """The dataset of each file as it lies on disk, in its own syntax and under its own class."""
    sent = {}
    for item in real(corpus):
        sent[item.sop_uid] = dataset = dataset_bytes(item.path)
        with RawPeer(receiver.port) as peer:
            peer.associate((item.sop_class, [item.transfer_syntax]))
            request = dimse.c_store_rq(1, item.sop_class, item.sop_uid)
            peer.send(peer.message(1, request, dataset))
            assert peer.response().status == dimse.SUCCESS
    assert {arrival.sop_uid: data for arrival, data in sink.committed} == sent
    assert len(sent) > 70


def dataset_bytes(path: Path) -> bytes:
    """What follows the file meta information."""
    data = path.read_bytes()
    stream = BytesIO(data)
    stream.seek(132)
    _read_file_meta_info(stream)
    return data[stream.tell() :]


def test_128_contexts_and_a_private_sop_class(receiver: Receiver, sink: MemorySink) -> None:
    classes = [f"1.3.12.2.1107.5.9.{number}" for number in range(128)]
    with RawPeer(receiver.port) as peer:
        answer = peer.associate(*[(uid, [IMPLICIT]) for uid in classes])
        assert [result.result for result in answer.results] == [0] * 128
        peer.send(peer.message(255, dimse.c_store_rq(1, classes[-1], "1.2.3"), b"private"))
        assert peer.response().status == dimse.SUCCESS
    assert sink.committed[0][0].sop_class == classes[-1]


def test_role_selection_and_extended_negotiation_with_pynetdicom(
    receiver: Receiver, sink: MemorySink
) -> None:
    sender = Pynetdicom("PYNETDICOM")
    sender.add_requested_context(CT)
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    window.maximum_number_operations_performed = 5
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = CT
    extended.service_class_application_information = b"\x02\x00\x03\x00\x01\x00"
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = b"user", b"password"
    identity.positive_response_requested = True
    items: list[Any] = [build_role(CT, scu_role=True, scp_role=True), window, extended, identity]
    association = sender.associate("127.0.0.1", receiver.port, ae_title="QUARRY", ext_neg=items)
    assert association.is_established
    (context,) = association.accepted_contexts
    assert (context.as_scu, context.as_scp) == (True, False)
    assert association.acceptor.asynchronous_operations == (1, 1)
    association.release()
