"""A whole job over TLS, with Orthanc on the other side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.e2e.command import check_folder, files, outcomes
from tests.e2e.job_runs import Job
from tests.peers.certificates import Authority, Identity
from tests.peers.corpus import write_study
from tests.peers.fixtures import Start
from tests.peers.orthanc import Orthanc

pytestmark = pytest.mark.archive

ACCESSIONS = ["TLS1", "TLS2"]


@dataclass(frozen=True, slots=True)
class Ward:
    """The certificates of one hospital."""

    authority: Authority
    archive: Identity
    quarry: Identity


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    authority = Authority(tmp_path_factory.mktemp("ward"))
    return Ward(authority, authority.issue("archive"), authority.issue("quarry"))


def orthanc(folder: Path, ward: Ward, local: AE, *, back: bool) -> Orthanc:
    """An archive that speaks TLS alone and wants to see certificates; ``back``: when it sends, too."""
    destination = {"AET": local.title, "Host": local.host, "Port": local.port, "UseDicomTls": back}
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(ward.archive.certificate),
        "DicomTlsPrivateKey": str(ward.archive.key),
        "DicomTlsTrustedCertificates": str(ward.authority.ca),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {local.title: destination},
    }
    return Orthanc(folder, options=options)


def table(who: Identity | None, authority: Authority) -> str:
    lines = ["[tls]", f'ca = "{authority.ca}"']
    if who:
        lines += [f'certificate = "{who.certificate}"', f'key = "{who.key}"']
    return "\n".join(lines)


def load(server: Orthanc, folder: Path) -> None:
    for accession in ACCESSIONS:
        items = write_study(folder / accession, patient_id="P", accession=accession, instances=5)
        server.load([item.path for item in items])


def job_of(work: Path, ward: Ward, start: Start, *, back: bool) -> Job:
    job = Job(work, AE("ORTHANC", "127.0.0.1", 1), ACCESSIONS)
    server = start(orthanc(work / "orthanc", ward, job.local, back=back))
    load(server, work)
    job.archive = server.ae
    return job


@pytest.mark.parametrize("kind", ["query", "both"])
def test_a_job(work: Path, ward: Ward, start: Start, kind: str) -> None:
    job = job_of(work, ward, start, back=kind == "both")
    job.configure(f'tls = "{kind}"', tables=table(ward.quarry, ward.authority))
    done = job.run()
    assert done.code == 0, done.out + done.err
    assert outcomes(job.out) == [("complete", "all_listed_stored")] * 2
    assert len(files(job.out)) == 10
    check_folder(job.out)


def test_what_is_wrong_is_said_before_anything_is_asked(work: Path, ward: Ward, start: Start) -> None:
    job = job_of(work, ward, start, back=True)
    other = Authority(work / "other", "other")
    stranger = other.issue("stranger")
    expired = ward.authority.issue("old", days=-1)
    mixed = Identity(ward.quarry.certificate, stranger.key)
    mine, ours = ward.quarry, ward.authority
    for settings, tables, code, sentence in [
        ("", "", 3, "whether it expects TLS"),
        ('tls = "query"', table(None, ours), 3, "certificate"),
        ('tls = "query"', table(stranger, ours), 3, "certificate"),
        ('tls = "query"', table(mine, other), 3, "is not trusted: self-signed certificate"),
        ('tls = "query"', table(expired, ours), 2, "has expired. Get a new one"),
        ('tls = "query"', table(mixed, ours), 2, "does not belong to the key"),
        ('tls = "both"', table(None, ours), 2, 'tls = "both" needs a certificate of ours'),
    ]:
        job.configure(settings, tables=tables)
        done = job.run()
        assert (done.code, sentence in done.err) == (code, True), done.err
    # Nothing was asked for, so the same folder will do.
    job.configure('tls = "both"', tables=table(mine, ours))
    assert job.run().code == 0


def test_the_archive_s_authority_need_not_be_ours(work: Path, ward: Ward, start: Start) -> None:
    """It knows our certificate by itself; our receiver hears itself all the same."""
    own = Authority(work / "own", "own").issue("quarry")
    trusted = work / "trusted.pem"
    trusted.write_bytes(ward.authority.ca.read_bytes() + (work / "own" / "own-ca.pem").read_bytes())
    known = Ward(Both(ward.authority, trusted), ward.archive, own)  # type: ignore[arg-type]
    job = job_of(work, known, start, back=True)
    job.configure('tls = "both"', tables=table(own, ward.authority))
    done = job.run()
    assert done.code == 0, done.out + done.err


class Both:
    """Two authorities in one file."""

    def __init__(self, authority: Authority, ca: Path) -> None:
        self.authority = authority
        self.ca = ca
