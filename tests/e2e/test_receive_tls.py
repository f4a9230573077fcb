"""``quarry receive`` over TLS, with DCMTK's storescu on the other side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import files
from tests.e2e.receive_process import Receiving, dicom, send
from tests.peers.certificates import Authority, Identity
from tests.peers.process import wait_for

pytestmark = pytest.mark.archive


def known(who: Identity, authority: Authority) -> list[str]:
    """How storescu shows a certificate, and whose it takes."""
    return ["+tls", str(who.key), str(who.certificate), "+cf", str(authority.ca)]


def test_mutual(work: Path) -> None:
    hospital, other = Authority(work, "hospital"), Authority(work, "other")
    server, client, stranger = hospital.issue("server"), hospital.issue("client"), other.issue("stranger")
    (path,) = dicom(work, pixel_bytes=3 << 20)
    tls = ["--tls-cert", server.certificate, "--tls-key", server.key, "--tls-ca", hospital.ca]
    with Receiving(work, *tls) as receiving:

        def refused(words: list[str], why: str) -> None:
            assert send("storescu", receiving.ae, *words, path)[0] == 0
            wait_for(lambda: why in receiving.said, why)
            assert files(receiving.folder) == set()

        refused(known(stranger, hospital), "its certificate is not trusted: unable to get local issuer")
        refused(known(client, other), "it does not trust the authority (CA) of our certificate")
        refused(["+tla", "-ic"], "it sent no client certificate")
        refused([], "it does not use TLS")
        count, said = send("storescu", receiving.ae, *known(client, hospital), path, path)
        assert count == 2, said
        assert "E: " not in said and "W: " not in said, said
        assert send("echoscu", receiving.ae, *known(client, hospital))[1].count("Success") >= 1
        receiving.running.terminate()
        assert receiving.running.wait() == 0
    (name,) = files(receiving.folder)
    assert (receiving.folder / name).stat().st_size > 3 << 20


def test_anonymous(work: Path) -> None:
    hospital = Authority(work)
    server = hospital.issue("server")
    both = work / "both.pem"
    both.write_bytes(server.certificate.read_bytes() + server.key.read_bytes())
    paths = dicom(work, count=3)
    with Receiving(work, "--tls-cert", both) as receiving:
        count, said = send("storescu", receiving.ae, "+tla", "+cf", str(hospital.ca), *paths)
        assert count == 3, said
        assert send("storescu", receiving.ae, *paths)[0] == 0
    assert len(files(receiving.folder)) == 3
