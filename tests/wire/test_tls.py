"""TLS contexts, and associations over them: what goes wrong is a sentence, time-outs are kept."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.errors import ConfigError, Unreachable
from dicom_quarry.model import AE
from dicom_quarry.receiver.server import Receiver, ReceiverLimits, SenderRejected
from dicom_quarry.wire import dimse
from dicom_quarry.wire.requestor import Requestor
from dicom_quarry.wire.tls import acceptor_context, requestor_context
from tests.peers.certificates import Authority, Identity, openssl
from tests.peers.process import wait_for
from tests.receiver.helpers import CT, EXPLICIT, IMPLICIT, MemorySink

CONTEXTS = [(dimse.VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT])]


class Keys:
    """Two authorities, and one certificate of each kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hospital, self.other = Authority(folder, "hospital"), Authority(folder, "other")
        self.server, self.client = self.hospital.issue("server"), self.hospital.issue("client")
        self.stranger = self.other.issue("stranger")
        self.expired = self.hospital.issue("expired", days=-1)
        self.device = self.hospital.issue("old-device", rsa=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


# ---- files


def test_files_that_cannot_be_used(keys: Keys, tmp_path: Path) -> None:
    mine, theirs = keys.server, keys.stranger
    junk, none, locked = tmp_path / "junk.pem", tmp_path / "none.pem", tmp_path / "locked.key"
    junk.write_text("nothing")
    openssl("pkey", "-in", mine.key, "-aes256", "-passout", "pass:secret", "-out", locked)

    def refused(make: Callable[..., object], *files: Path | None) -> str:
        with pytest.raises(ConfigError) as error:
            make(*files)
        return str(error.value).replace(f"{tmp_path}/", "").replace(f"{keys.folder}/", "")

    assert refused(acceptor_context, none) == "none.pem cannot be read: No such file or directory"
    assert refused(acceptor_context, mine.certificate, none).startswith("none.pem cannot be read")
    assert refused(acceptor_context, mine.certificate, mine.key, none).startswith("none.pem cannot be read")
    assert refused(requestor_context, none).startswith("none.pem cannot be read")
    assert refused(acceptor_context, tmp_path).endswith("cannot be read: Is a directory")
    assert "Set the file of the key, too" in refused(acceptor_context, mine.certificate)
    assert "junk.pem are not a certificate and its key" in refused(acceptor_context, mine.certificate, junk)
    assert "junk.pem does not contain an authority's certificate" in refused(requestor_context, junk)
    assert refused(acceptor_context, mine.certificate, locked) == (
        "the key locked.key is protected by a password. Use a key without a password"
    )
    assert refused(acceptor_context, mine.certificate, theirs.key) == (
        "the certificate hospital-server.pem does not belong to the key other-stranger.key"
    )
    old = keys.expired
    sentence = "the certificate hospital-expired.pem has expired. Get a new one"
    assert refused(acceptor_context, old.certificate, old.key) == sentence
    assert refused(requestor_context, None, old.certificate, old.key) == sentence


def test_files_that_can_be_used(keys: Keys, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(keys.server.certificate.read_bytes() + keys.server.key.read_bytes())
    acceptor_context(both)
    requestor_context(keys.hospital.ca, both)
    requestor_context()
    device = keys.hospital.issue("device", extensions="extendedKeyUsage=clientAuth\n")
    requestor_context(keys.hospital.ca, device.certificate, device.key)


# ---- associations


class Pair:
    """A receiver over TLS, and requestors to it."""

    def __init__(self, receiver: Receiver, refused: list[SenderRejected]) -> None:
        self.receiver = receiver
        self.refused = refused

    def connect(self, tls: ssl.SSLContext | None, host: str = "127.0.0.1") -> Requestor:
        return Requestor.connect(
            AE("QUARRY", host, self.receiver.port),
            calling="SENDER",
            contexts=CONTEXTS,
            tls=tls,
            answer_timeout=5,
        )

    def why(self) -> str:
        wait_for(lambda: bool(self.refused), "a refusal")
        return self.refused.pop(0).reason


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make(keys: Keys, sink: MemorySink) -> Iterator[Callable[..., Pair]]:
    with ExitStack() as stack:

        def start(tls: ssl.SSLContext | None, **options: Any) -> Pair:
            refused: list[SenderRejected] = []
            local = AE("QUARRY", "127.0.0.1", 0)
            receiver = Receiver(local, sink, tls=tls, on_event=refused.append, **options)
            receiver.start()
            stack.callback(receiver.stop, 0.0)
            return Pair(receiver, refused)

        yield start


def mutual(keys: Keys) -> ssl.SSLContext:
    return acceptor_context(keys.server.certificate, keys.server.key, keys.hospital.ca)


def client(keys: Keys, who: Identity | None = None) -> ssl.SSLContext:
    who = who or keys.client
    return requestor_context(keys.hospital.ca, who.certificate, who.key)


def echoed(requestor: Requestor) -> bool:
    requestor.send(dimse.c_echo_rq(1), context_id=1)
    answer = requestor.receive(10)
    return answer is not None and answer.command.status == dimse.SUCCESS


def test_an_association_and_its_time_outs(keys: Keys, make: Callable[..., Pair], sink: MemorySink) -> None:
    pair = make(mutual(keys))
    requestor = pair.connect(client(keys))
    assert echoed(requestor)
    for timeout in (0.3, 0.0):
        began = time.monotonic()
        assert requestor.receive(timeout) is None
        assert timeout <= time.monotonic() - began < timeout + 1.0
    # The receiver has looked at its clock meanwhile.
    assert echoed(requestor)
    data = bytes(range(256)) * 8192
    requestor.send(dimse.c_store_rq(2, CT, "1.2.3"), data, context_id=3)
    answer = requestor.receive(30)
    assert answer is not None and answer.command.status == dimse.SUCCESS
    assert [stored for _, stored in sink.committed] == [data]
    requestor.release()
    wait_for(lambda: pair.receiver.stats.open_associations == 0, "the release")
    assert pair.refused == []


def test_an_untrusted_sender_is_refused_and_the_receiver_goes_on(
    keys: Keys, make: Callable[..., Pair]
) -> None:
    pair = make(mutual(keys))
    foreign = requestor_context(keys.hospital.ca, keys.stranger.certificate, keys.stranger.key)
    expired = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    expired.load_verify_locations(keys.hospital.ca)
    expired.load_cert_chain(keys.expired.certificate, keys.expired.key)
    distrusting = requestor_context(keys.other.ca, keys.client.certificate, keys.client.key)
    for tls, theirs, ours in [
        (
            foreign,
            "refused the TLS connection (unknown ca)",
            "its certificate is not trusted: unable to get local",
        ),
        (
            expired,
            "refused the TLS connection (certificate expired)",
            "its certificate is not trusted: certificate has",
        ),
        (
            requestor_context(keys.hospital.ca),
            "refused the TLS connection (certificate required)",
            "it sent no client",
        ),
        (distrusting, "is not trusted: self-signed", "it does not trust the authority (CA) of our cert"),
        (None, "whether it expects TLS", "it does not use TLS"),
    ]:
        with pytest.raises(Unreachable) as error:
            pair.connect(tls)
        assert theirs in str(error.value)
        assert pair.why().startswith(ours)
        assert echoed(pair.connect(client(keys)))
    assert pair.receiver.stats.rejected_associations == 5


def test_a_connection_without_bytes_is_not_reported(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(mutual(keys))
    for _ in range(3):
        socket.create_connection(("127.0.0.1", pair.receiver.port)).close()
    assert echoed(pair.connect(client(keys)))
    assert pair.refused == []


def test_silence_before_the_handshake_ends(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(mutual(keys), limits=ReceiverLimits(request_timeout=0.3))
    with socket.create_connection(("127.0.0.1", pair.receiver.port)) as sock:
        sock.settimeout(20)
        assert sock.recv(1) == b""
    assert pair.refused == []


def test_without_an_authority_senders_need_no_certificate(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(acceptor_context(keys.server.certificate, keys.server.key))
    assert echoed(pair.connect(requestor_context(keys.hospital.ca)))


def test_the_name_in_the_certificate(keys: Keys, make: Callable[..., Pair]) -> None:
    device = keys.hospital.issue("nameless", extensions="extendedKeyUsage=serverAuth\n")
    pair = make(acceptor_context(device.certificate, device.key))
    with pytest.raises(Unreachable, match="is not trusted: IP address mismatch"):
        pair.connect(requestor_context(keys.hospital.ca))
    assert echoed(pair.connect(requestor_context(keys.hospital.ca, check_hostname=False)))
    with pytest.raises(Unreachable, match="is not trusted"):
        pair.connect(requestor_context(keys.other.ca, check_hostname=False))


def test_one_side_without_tls(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(None)
    with pytest.raises(Unreachable, match=r"TLS") as error:
        pair.connect(client(keys))
    assert "did not answer with TLS" in str(error.value) or "closed the connection" in str(error.value)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_and_weak_ciphers_are_refused(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(acceptor_context(keys.server.certificate, keys.server.key))
    weak = requestor_context(keys.hospital.ca)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    assert echoed(pair.connect(weak))
    weak.set_ciphers("AES128-SHA")
    with pytest.raises(Unreachable):
        pair.connect(weak)
    assert pair.why().startswith(
        "it offers no cipher suite of the BCP 195 profile: change that at the sender"
    )
    pair = make(acceptor_context(keys.server.certificate, keys.server.key))
    weak = requestor_context(keys.hospital.ca)
    weak.minimum_version = ssl.TLSVersion.TLSv1
    weak.maximum_version = ssl.TLSVersion.TLSv1_1
    weak.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(Unreachable):
        pair.connect(weak)
    # The requestor tries once more, to find out whether the older profile would do.
    old = "its TLS version is too old: TLS 1.2 or 1.3 is needed, or set tls-profile"
    wait_for(lambda: any(one.reason.startswith(old) for one in pair.refused), "the refusal of the version")


def old_device(keys: Keys, ca: Path | None = None, version: str = "TLSv1_2") -> ssl.SSLContext:
    """The TLS of a device that knows the AES profile of PS3.15 B.3 alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys.device.certificate, keys.device.key)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = getattr(ssl.TLSVersion, version)
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    if ca is not None:
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_2"])
@pytest.mark.parametrize("is_mutual", [False, True])
def test_the_older_aes_profile_is_named_and_possible(
    keys: Keys, make: Callable[..., Pair], version: str, is_mutual: bool
) -> None:
    ca = keys.hospital.ca if is_mutual else None
    pair = make(old_device(keys, ca, version))
    mine = (keys.hospital.ca, keys.client.certificate, keys.client.key)
    with pytest.raises(Unreachable) as error:
        pair.connect(requestor_context(*mine))
    assert "uses the older AES profile of TLS (TLS_RSA_WITH_AES_128_CBC_SHA)" in str(error.value)
    assert 'set tls-profile = "aes"' in str(error.value)
    assert echoed(pair.connect(requestor_context(*mine, profile="aes")))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_a_receiver_of_the_aes_profile_accepts_both_profiles(keys: Keys, make: Callable[..., Pair]) -> None:
    pair = make(acceptor_context(keys.device.certificate, keys.device.key, profile="aes"))
    assert echoed(pair.connect(requestor_context(keys.hospital.ca)))
    old = requestor_context(keys.hospital.ca, profile="aes")
    old.maximum_version = ssl.TLSVersion.TLSv1
    assert echoed(pair.connect(old))


def test_a_missing_certificate_is_not_taken_for_an_old_profile(keys: Keys, make: Callable[..., Pair]) -> None:
    broad = acceptor_context(keys.device.certificate, keys.device.key, keys.hospital.ca, profile="aes")
    broad.maximum_version = ssl.TLSVersion.TLSv1_2
    pair = make(broad)
    with pytest.raises(Unreachable) as error:
        pair.connect(requestor_context(keys.hospital.ca))
    assert "AES" not in str(error.value)
    assert "another client certificate" in str(error.value)
