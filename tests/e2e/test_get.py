"""Jobs whose only road is C-GET: no receiver, no port, and the same proof."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import GetOperation
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.store_scu import CGetStoreSCU
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.model import AE
from tests.e2e.command import Running, check_folder, digests, files, manifest, outcomes, quarry, report, until
from tests.e2e.conftest import Site
from tests.e2e.demo_process import Content
from tests.e2e.job_runs import Job, accessions
from tests.e2e.paused_archive import GatedArchive
from tests.e2e.test_byte_identity import JPEG_2000, RLE, split
from tests.e2e.test_memory import LIMIT, extracted
from tests.peers.corpus import TEN_STUDIES_PATIENT, Corpus
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.fixtures import Start
from tests.peers.relay import C_GET, C_MOVE, Relay

ALL_STORED = ("complete", "all_listed_stored")


@pytest.fixture
def taken() -> Iterator[AE]:
    """A receiver's address that somebody else has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield AE("QUARRY", "127.0.0.1", server.getsockname()[1])


@pytest.mark.parametrize("name", ["orthanc", "dcmqrscp", "demo"])
def test_a_whole_job_brings_what_crossed_the_wire(
    name: str, request: pytest.FixtureRequest, work: Path, taken: AE
) -> None:
    site: Site = request.getfixturevalue(name)
    studies = site.holding.studies
    cohort, out = work / "cohort.csv", work / "out"
    cohort.write_text("\n".join(["StudyInstanceUID", *studies]) + "\n")
    with Relay(site.ae) as relay:
        command = ("extract", cohort, "--from", relay.ae, "--as", taken, "--to", out, "--parallel", 2)
        done = quarry(*command, "--retrieve", "get")
        sent = relay.stored()
        assert not relay.requests(C_MOVE)
        assert len(relay.requests(C_GET)) == len(studies), "a study was asked for more than once"
    assert done.code == 0, done.out + done.err
    assert set(outcomes(out)) == {ALL_STORED}
    check_folder(out)
    kept = {uid: (syntax, data) for syntax, uid, data in (split(out / row["path"]) for row in manifest(out))}
    assert set(kept) == {sop_uid for study in studies.values() for sop_uid in study.sop_uids}
    different = [uid for uid in kept if kept[uid] != sent[uid]]
    assert not different
    if name == "orthanc":
        # As they lie there. Only Deflated, which is not offered at first, is converted on the way.
        assert {RLE, JPEG_2000} <= {syntax for syntax, _ in kept.values()}


@pytest.mark.archive
def test_killed_and_restarted_it_ends_as_if_nothing_had_happened(orthanc: Site, work: Path) -> None:
    cohort, calm, out = work / "cohort.csv", work / "calm", work / "out"
    cohort.write_text(f"PatientID\n{TEN_STUDIES_PATIENT}\n")
    options = ("--from", orthanc.ae, "--retrieve", "get", "--whole-patients")
    assert quarry("extract", cohort, *options, "--to", calm).code == 0
    total = len(files(calm))
    with Running(work / "output.txt", "extract", cohort, *options, "--to", out) as running:
        until(running, "half of the files", lambda: len(files(out)) >= total // 2)
        running.kill()
    assert len(files(out)) < total, "the last kill came too late to be one"
    assert quarry("extract", cohort, *options, "--to", out).code == 0
    assert digests(out) == digests(calm)
    check_folder(out)
    assert not list((out / ".quarry" / "incoming").iterdir())


def test_killed_in_a_study_it_asks_for_what_is_missing_alone(work: Path) -> None:
    study = generate_studies(1, seed=6, images=12)[0]
    with GatedArchive([study]) as archive:
        archive.hold_after = 5
        job = Job(work, AE(archive.title, archive.host, archive.port), [study.accession])
        job.configure('retrieve = "get"')
        with Running(work / "run.txt", *job.command()) as running:
            until(running, "five files", lambda: archive.held.is_set() and len(files(job.out)) == 5)
            running.kill()
        archive.open()
        here = {Path(name).stem for name in files(job.out)}
        assert job.run().code == 0
        first, *later = archive.asked
    assert (first.level, [query.level for query in later]) == ("STUDY", ["IMAGE"])
    assert set(later[0].values("SOPInstanceUID")) == {one.sop_uid for one in study.instances()} - here
    check_folder(job.out)


class Meddling(DemoArchive):
    """Sends a study that was not asked for along with each that was."""

    def __init__(self, studies: list[DemoStudy], stranger: DemoStudy) -> None:
        super().__init__(studies)
        self.stranger = stranger

    def get(self, get: GetOperation) -> None:
        instances = [*self.stranger.instances(), *self.catalogue.select(get.query)]
        self.run_sub_operations(get, instances, lambda: CGetStoreSCU(get.assoc))


def test_what_was_not_asked_for_is_refused_and_the_rest_is_kept(work: Path) -> None:
    *studies, stranger = generate_studies(3, seed=7, images=2)
    with Meddling(studies, stranger) as archive:
        job = Job(work, archive, accessions(studies))
        done = job.run("--retrieve", "get")
    assert done.code == 0, done.out + done.err
    assert [row["quarry_outcome"] for row in report(job.out)] == ["complete"] * 2
    assert f"{2 * len(list(stranger.instances()))} instances refused" in done.out
    assert not any(stranger.study_uid in name for name in files(job.out))


@pytest.mark.archive
def test_an_archive_without_c_get_is_said_to_be_one(start: Start, corpus: Corpus, work: Path) -> None:
    item = corpus.uncompressed().items[0]
    server = Dcmqrscp(work / "archive", extra=["--disable-get"])
    server.load([item.path])
    start(server)
    job = Job(work, server.ae, [])
    job.cohort.write_text(f"StudyInstanceUID\n{item.study_uid}\n")
    done = job.run("--retrieve", "get")
    assert done.code == 4
    assert "does not offer C-GET in the Study Root model to QUARRY" in done.err


def test_memory_does_not_grow_with_an_instance(work: Path) -> None:
    # 25 frames of 8 MiB: 210 MB, more than the limit, which the archive makes while it sends.
    peak, out = extracted(work, Content(studies=1, images=1, frames=25), "--retrieve", "get")
    (name,) = files(out)
    assert (out / name).stat().st_size > LIMIT
    assert peak < LIMIT
    (out / name).unlink()
