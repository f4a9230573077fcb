"""The DICOMweb adapter over https and through proxies: trust, client certificates, the way to the server."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dicom_quarry.archive.base import RetrieveRequest, Verdict
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.errors import ArchiveError, ConfigError, ConnectionLost, OperatorActionRequired, Unreachable
from dicom_quarry.model import BaseUri
from dicom_quarry.wire.tls import acceptor_context
from tests.archive.sites import MemorySink, PatientWatch
from tests.peers.certificates import Authority, Identity
from tests.peers.process import free_port
from tests.peers.proxy import Proxy
from tests.scripted.web import ScriptedWeb, TlsWeb, WebFault
from tests.scripted.web_faults import CutBody

(STUDY,) = generate_studies(1, seed=51, series=1, images=3)
UIDS = {instance.sop_uid for instance in STUDY.instances()}

_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Hospital:
    """Its authority, the archive's certificate and ours, and a foreign authority."""

    authority: Authority
    archive: Identity
    quarry: Identity
    other: Authority


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    folder = tmp_path_factory.mktemp("hospital")
    authority = Authority(folder)
    return Hospital(
        authority, authority.issue("archive"), authority.issue("quarry"), Authority(folder, "other")
    )


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def serving(
    identity: Identity, ca: Path | None = None, *faults: WebFault, most: ssl.TLSVersion | None = None
) -> TlsWeb:
    """An archive that shows this certificate; with ``ca`` it wants to see ours."""
    context = acceptor_context(identity.certificate, identity.key, ca)
    if most:
        context.maximum_version = most
    return TlsWeb([STUDY], context, faults)


@contextmanager
def adapter(base: str, **access: Any) -> Iterator[DicomWebArchive]:
    made = DicomWebArchive("main", BaseUri.parse(base), HttpSettings(**access))
    try:
        yield made
    finally:
        made.close()


def fetched(archive: DicomWebArchive) -> tuple[Verdict, set[str]]:
    sink = MemorySink()
    answered = archive.retrieve(RetrieveRequest(STUDY.study_uid), sink, PatientWatch())
    return answered.verdict, set(sink.kept)


def failure(base: str, error: type[ArchiveError], **access: Any) -> str:
    """Return the message with which both a retrieval and a query fail."""
    with adapter(base, **access) as archive:
        with pytest.raises(error):
            archive.retrieve(RetrieveRequest(STUDY.study_uid), MemorySink(), PatientWatch())
        with pytest.raises(error) as raised:
            archive.probe()
    return str(raised.value)


# --- certificates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mutual", [False, True])
def test_queries_and_retrievals(hospital: Hospital, version: ssl.TLSVersion, mutual: bool) -> None:
    ours: dict[str, Any] = {}
    if mutual:
        ours = {"certificate": hospital.quarry.certificate, "key": hospital.quarry.key}
    ca = hospital.authority.ca
    with (
        serving(hospital.archive, ca if mutual else None, most=version) as web,
        adapter(web.base_url, ca=ca, **ours) as archive,
    ):
        archive.probe()
        found = archive.find({"AccessionNumber": STUDY.accession})
        assert [study.study_uid for study in found.studies] == [STUDY.study_uid]
        assert fetched(archive) == (Verdict.SUCCESS, UIDS)


def test_the_system_s_authorities_count_where_none_is_named(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(hospital.archive) as web:
        message = failure(web.base_url, Unreachable)
        assert "is not trusted: unable to get local issuer" in message
        assert "set ca =" in message
        monkeypatch.setenv("SSL_CERT_FILE", str(hospital.authority.ca))
        with adapter(web.base_url) as archive:
            assert fetched(archive) == (Verdict.SUCCESS, UIDS)


def test_a_named_authority_counts_instead_of_the_system_s(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(hospital.authority.ca))
    with serving(hospital.archive) as web:
        assert "is not trusted" in failure(web.base_url, Unreachable, ca=hospital.other.ca)


@pytest.mark.parametrize(
    ("extensions", "days", "message"),
    [
        ("subjectAltName=DNS:pacs.elsewhere.example\n", 30, "not valid for '127.0.0.1'"),
        ("subjectAltName=IP:127.0.0.1\n", -1, "certificate has expired"),
    ],
)
def test_a_wrong_name_and_an_old_certificate(
    hospital: Hospital, extensions: str, days: int, message: str
) -> None:
    wrong = hospital.authority.issue("wrong", days=days, extensions=extensions)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(wrong.certificate, wrong.key)
    with TlsWeb([STUDY], context) as web:
        sentence = failure(web.base_url, Unreachable, ca=hospital.authority.ca)
    assert f"the certificate of 127.0.0.1:{web.port} is not trusted" in sentence
    assert message in sentence


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("who", ["none", "a stranger"])
def test_an_archive_that_wants_to_know_us_by_a_certificate(
    hospital: Hospital, version: ssl.TLSVersion, who: str
) -> None:
    ours: dict[str, Any] = {}
    if who == "a stranger":
        stranger = hospital.other.issue("stranger")
        ours = {"certificate": stranger.certificate, "key": stranger.key}
    with serving(hospital.archive, hospital.authority.ca, most=version) as web:
        message = failure(web.base_url, Unreachable, ca=hospital.authority.ca, **ours)
        assert not web.log
    assert "another client certificate" in message


def test_a_connection_that_ends_in_place_of_an_answer(hospital: Hospital) -> None:
    """What becomes of a refusal when our request is still on its way."""
    context = acceptor_context(hospital.archive.certificate, hospital.archive.key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client = context.wrap_socket(server.accept()[0], server_side=True)
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        base = f"https://127.0.0.1:{server.getsockname()[1]}/x"
        with (
            adapter(base, ca=hospital.authority.ca) as archive,
            pytest.raises(ConnectionLost, match="another client certificate"),
        ):
            archive.probe()


def test_unusable_certificates_are_reported_before_the_first_request(
    hospital: Hospital, tmp_path: Path
) -> None:
    expired = hospital.authority.issue("old", days=-1)
    mixed = {"certificate": hospital.quarry.certificate, "key": hospital.archive.key}
    for access, message in [
        ({"ca": tmp_path / "missing.pem"}, "missing.pem cannot be read"),
        ({"ca": hospital.quarry.key}, "does not contain an authority's certificate"),
        ({"certificate": expired.certificate, "key": expired.key}, "has expired. Get a new one"),
        (mixed, "does not belong to the key"),
    ]:
        with pytest.raises(ConfigError, match=message), adapter("https://127.0.0.1:9/x", **access):
            pass
    with pytest.raises(ValidationError, match="write key together with certificate"):
        HttpSettings(key=hospital.quarry.key)


def test_one_side_without_tls(hospital: Hospital) -> None:
    with ScriptedWeb([STUDY]) as web:
        secured = web.base_url.replace("http:", "https:")
        assert "did not answer with TLS" in failure(secured, Unreachable, ca=hospital.authority.ca)
    with serving(hospital.archive) as tls:
        plain = tls.base_url.replace("https:", "http:")
        with adapter(plain) as archive, pytest.raises(ConnectionLost, match="does not speak HTTP"):
            archive.probe()


def test_a_body_that_is_cut_keeps_what_was_whole(hospital: Hospital) -> None:
    ca = hospital.authority.ca
    cut = CutBody("chunks", parts=2)
    with serving(hospital.archive, None, cut) as web, adapter(web.base_url, ca=ca) as archive:
        verdict, kept = fetched(archive)
    assert (verdict, len(kept)) == (Verdict.LOST, 2)


# --- proxies ----------------------------------------------------------------------------------------------


def test_a_proxy_is_used_for_https_and_http(hospital: Hospital) -> None:
    with Proxy() as proxy, serving(hospital.archive) as web:
        with adapter(web.base_url, ca=hospital.authority.ca, proxy=proxy.url) as archive:
            archive.probe()
            assert fetched(archive) == (Verdict.SUCCESS, UIDS)
        assert proxy.request_lines == [f"CONNECT 127.0.0.1:{web.port} HTTP/1.1"]
    with Proxy() as proxy, ScriptedWeb([STUDY]) as open_web:
        with adapter(open_web.base_url, proxy=proxy.url) as archive:
            assert fetched(archive) == (Verdict.SUCCESS, UIDS)
        (line,) = proxy.request_lines
        assert line.startswith(f"GET {open_web.base_url}/studies/{STUDY.study_uid}")


def test_certificates_count_behind_a_proxy(hospital: Hospital) -> None:
    with Proxy() as proxy, serving(hospital.archive) as web:
        message = failure(web.base_url, Unreachable, ca=hospital.other.ca, proxy=proxy.url)
    assert f"the certificate of 127.0.0.1:{web.port} is not trusted" in message


@pytest.mark.parametrize("lower", [False, True])
def test_the_environment_s_proxies_are_used_only_where_the_settings_name_them(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, lower: bool
) -> None:
    ca = hospital.authority.ca
    with Proxy() as proxy, serving(hospital.archive) as web, ScriptedWeb([STUDY]) as open_web:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name.lower() if lower else name, proxy.url)
        for base in (web.base_url, open_web.base_url):
            with adapter(base, ca=ca) as archive:
                assert fetched(archive) == (Verdict.SUCCESS, UIDS)
        assert not proxy.request_lines
        for base in (web.base_url, open_web.base_url):
            with adapter(base, ca=ca, proxy="environment") as archive:
                assert fetched(archive) == (Verdict.SUCCESS, UIDS)
        assert len(proxy.request_lines) == 2
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with adapter(web.base_url, ca=ca, proxy="environment") as archive:
            assert fetched(archive) == (Verdict.SUCCESS, UIDS)
        assert len(proxy.request_lines) == 2


@pytest.mark.parametrize("base", ["https://pacs.example.org/dicom-web", "http://pacs.example.org/dicom-web"])
def test_a_proxy_that_is_not_there_is_named_and_not_the_archive(
    base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    message = failure(base, Unreachable, proxy=f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} refused the connection" in message
    assert "the proxy" in message
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
    assert "proxy" in failure(base, Unreachable, proxy="environment")


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (407, OperatorActionRequired, "The proxy requires a user and a password (HTTP 407)"),
        (403, Unreachable, "it refused the connection (HTTP 403)"),
        (502, Unreachable, "it refused the connection (HTTP 502)"),
    ],
)
def test_a_proxy_that_refuses(
    hospital: Hospital, status: int, error: type[ArchiveError], message: str
) -> None:
    with Proxy(refusal=status) as proxy, serving(hospital.archive) as web:
        assert message in failure(web.base_url, error, ca=hospital.authority.ca, proxy=proxy.url)
        assert not web.log


@pytest.mark.parametrize(
    "proxy",
    ["proxy.example.org:3128", "socks5://proxy:1080", "https://proxy:3128", "http://", "http://p:x", "yes"],
)
def test_an_unusable_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ValidationError, match="http://HOST:PORT"):
        HttpSettings(proxy=proxy)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "ftp://127.0.0.1:1", "http://p:x"])
def test_an_unusable_proxy_of_the_environment_is_refused(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert "environment" in failure("https://pacs.example.org/x", OperatorActionRequired, proxy="environment")
