"""Jobs over https, as a user runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.wire.tls import acceptor_context
from tests.e2e.command import check_folder, files, outcomes, quarry
from tests.peers.certificates import Authority, Identity
from tests.peers.process import free_port
from tests.scripted.web import TlsWeb

STUDIES = generate_studies(2, seed=52, images=4)


def configure(work: Path, base: str, ca: Path, who: Identity | None = None, *more: str) -> None:
    lines = ["[archive.main]", f'dicomweb = "{base}"', "[archive.main.http]", f'ca = "{ca}"', *more]
    if who:
        lines += [f'certificate = "{who.certificate}"', f'key = "{who.key}"']
    (work / "quarry.toml").write_text("\n".join(lines) + "\n")
    (work / "cohort.csv").write_text("Accession\n" + "\n".join(one.accession for one in STUDIES) + "\n")


def test_a_job_with_a_certificate_of_ours(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a hospital's computer names a proxy, which is not asked."""
    authority, other = Authority(work / "pki"), Authority(work / "pki", "other")
    archive, mine, stranger = authority.issue("archive"), authority.issue("quarry"), other.issue("quarry")
    proxy = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    extract = ("extract", "cohort.csv", "--from", "main", "--to", "out")
    with TlsWeb(STUDIES, acceptor_context(archive.certificate, archive.key, authority.ca)) as web:
        for ca, who, more, code, sentence in [
            (authority.ca, None, [], 3, "another client certificate"),
            (authority.ca, stranger, [], 3, "another client certificate"),
            (other.ca, mine, [], 3, "is not trusted: self-signed certificate"),
            (mine.key, mine, [], 2, "does not contain an authority's certificate"),
            (authority.ca, mine, ['proxy = "proxy:3128"'], 2, 'write proxy = "http://HOST:PORT"'),
            (authority.ca, mine, [f'proxy = "{proxy}"'], 3, "no connection to https://127.0.0.1:"),
            (authority.ca, mine, ['proxy = "environment"'], 3, "the proxy that the environment names"),
        ]:
            configure(work, web.base_url, ca, who, *more)
            done = quarry(*extract, cwd=work)
            assert (done.code, sentence in done.err) == (code, True), done.out + done.err
        configure(work, web.base_url, authority.ca, mine)
        checked = quarry("check", "--from", "main", cwd=work)
        assert checked.code == 0, checked.out + checked.err
        done = quarry(*extract, cwd=work)
    assert done.code == 0, done.out + done.err
    assert outcomes(work / "out") == [("complete", "all_listed_stored")] * 2
    assert len(files(work / "out")) == sum(len(list(one.instances())) for one in STUDIES)
    check_folder(work / "out")
