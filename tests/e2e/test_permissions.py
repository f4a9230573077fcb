"""Colleagues share the work: modes, groups and umasks; and a record on another disk than the images."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, files, manifest, outcomes, quarry, status, until
from tests.e2e.file_systems import NetworkDisk, small_disk
from tests.e2e.job_runs import Job, accessions
from tests.e2e.paused_archive import GatedArchive
from tests.e2e.receive_process import Receiving, send
from tests.peers.corpus import write_study

STUDIES = generate_studies(3, seed=41, images=3)
COMPLETE = ("complete", "all_listed_stored")


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    with GatedArchive(STUDIES) as server:
        yield server


@pytest.fixture
def group() -> grp.struct_group:
    """One that is not the usual one: root is let into any."""
    if os.geteuid() != 0:
        pytest.skip("root alone may give files to any group")
    return next(one for one in grp.getgrall() if one.gr_gid not in {0, os.getegid(), *os.getgroups()})


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> set[tuple[bool, int, int]]:
    """Of everything in the tree but Quarry's own folder: is it a folder, its mode, its group."""
    paths = [folder, *(path for path in folder.rglob("*") if ".quarry" not in path.parts)]
    return {(path.is_dir(), path.stat().st_mode & 0o7777, path.stat().st_gid) for path in paths}


def is_private(folder: Path) -> bool:
    own = folder / ".quarry"
    return all(path.stat().st_mode & 0o077 == 0 for path in (own, *own.rglob("*")) if path.is_dir())


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_a_job_is_shared_whatever_the_umask(
    work: Path, archive: GatedArchive, group: grp.struct_group, mask: int
) -> None:
    job = Job(work, archive, accessions(STUDIES))
    with umask(mask):
        done = job.run("--file-mode", "0640", "--group", group.gr_name)
    assert done.code == 0, done.err
    assert modes(job.out) == {(True, 0o2750, group.gr_gid), (False, 0o640, group.gr_gid)}
    assert is_private(job.out)
    # Also what is written later: the list of a damaged file, and the file that comes in its place.
    path = job.out / manifest(job.out)[0]["path"]
    path.write_bytes(b"damaged")
    with umask(mask):
        assert quarry("verify", job.out).code == 1
        assert quarry("retry", job.out, "--damaged").code == 0
        assert quarry("report", job.out, "--xlsx").code == 0
    assert (job.out / "damaged.csv").is_file()
    assert modes(job.out) == {(True, 0o2750, group.gr_gid), (False, 0o640, group.gr_gid)}
    assert is_private(job.out)


def test_what_was_private_is_opened_from_then_on(
    work: Path, archive: GatedArchive, group: grp.struct_group
) -> None:
    job = Job(work, archive, accessions(STUDIES[:1]))
    assert job.run().code == 0
    assert modes(job.out) == {(True, 0o700, os.getegid()), (False, 0o600, os.getegid())}
    job.toml.write_text(f'file-mode = "0660"\ngroup = "{group.gr_gid}"\n{job.toml.read_text()}')
    job.cohort.write_text("\n".join(["Accession", *accessions(STUDIES)]) + "\n")
    assert job.run("--update").code == 0
    assert job.out.stat().st_mode & 0o7777 == 0o2770
    mixed = {(False, 0o660, group.gr_gid), (False, 0o600, os.getegid())}
    assert {one for one in modes(job.out) if not one[0]} == mixed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--file-mode", "0666"), "every user of this computer could change"),
        (("--group", "radiologists-of-mars"), "there is no group radiologists-of-mars"),
    ],
)
def test_what_cannot_be_given_is_said_at_the_start(
    work: Path, archive: GatedArchive, options: tuple[str, ...], said: str
) -> None:
    job = Job(work, archive, accessions(STUDIES))
    done = job.run(*options)
    assert done.code == 2 and said in done.err
    assert not archive.associations and not job.out.exists()


def test_the_receiver_shares_too(work: Path, group: grp.struct_group) -> None:
    [image] = write_study(work / "sent", patient_id="P1", accession="A1", instances=1)
    options = ("--file-mode", "0640", "--group", group.gr_name)
    with umask(0), Receiving(work, *options) as receiver:
        assert send("storescu", receiver.ae, image.path)[0] == 1
        [stored] = [receiver.folder / name for name in files(receiver.folder)]
        # One that a crash left on its way gets the same when it is recovered.
        receiver.running.kill()
        shutil.copy(stored, receiver.incoming / "left.part")
        (receiver.incoming / "left.part").chmod(0o600)
        stored.unlink()
        receiver.start()
        assert "1 instance recovered" in receiver.said
        assert modes(receiver.folder) == {(True, 0o2750, group.gr_gid), (False, 0o640, group.gr_gid)}
    assert is_private(receiver.folder)


# -- the record on another disk


def test_the_record_on_one_disk_and_the_images_on_another(
    work: Path, archive: GatedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(work / "nas", "2g") as nas:
        job = Job(work, archive, accessions(STUDIES))
        job.out = nas / "out"
        state = work / "local" / "state"
        assert job.out.parent.stat().st_dev != work.stat().st_dev
        archive.hold_after = 4
        with Running(work / "output.txt", *job.command("--state", state)) as running:
            until(running, "the archive to hold", archive.held.is_set)
            assert status(job.out)["running"]
            again = job.run()
            assert again.code == 3 and "is already working on" in again.err
            running.kill()
        archive.open()
        assert job.run().code == 0, "the record is found without --state"
        assert {path.name for path in (job.out / ".quarry").iterdir()} == {"incoming", "state-folder"}
        assert {path.name for path in state.iterdir()} >= {"ledger.db", "quarry.log", "lock"}
        assert outcomes(job.out) == [COMPLETE] * 3
        # Another day: another folder, nothing but the path of the images.
        (work / "elsewhere").mkdir()
        monkeypatch.chdir(work / "elsewhere")
        (job.out / manifest(job.out)[4]["path"]).unlink()
        assert status(job.out)["finished"]
        assert quarry("verify", job.out).code == 1
        assert quarry("retry", job.out, "--damaged").code == 0
        assert quarry("report", job.out).code == 0
        monkeypatch.chdir(work)
        # The local disk is not there: neither forgotten nor begun anew.
        state.rename(work / "unmounted")
        for command in (job.command(), ["status", job.out]):
            done = quarry(*command)
            assert done.code == 2 and f"keeps its record in {state}, which does not exist here" in done.err
        assert not state.exists()
        (work / "unmounted").rename(state)
        assert job.run().code == 0


def test_a_file_system_that_is_mounted_is_looked_at(work: Path) -> None:
    """A real mount of a disk image: local, so that the record may be on it."""
    image, place = work / "image", work / "place"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    place.mkdir()
    commands = ["mkfs.ext4", "-q", str(image)], ["mount", "-o", "loop", str(image), str(place)]
    if any(subprocess.run(one, capture_output=True, check=False).returncode for one in commands):
        pytest.skip("no disk image can be mounted here")
    try:
        with GatedArchive(STUDIES) as archive:
            job = Job(work, archive, accessions(STUDIES))
            assert job.run("--state", place / "state").code == 0
            assert status(job.out)["finished"]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_record_on_a_network_is_refused(work: Path, archive: GatedArchive) -> None:
    with NetworkDisk(work / "net") as net:
        job = Job(work, archive, accessions(STUDIES))
        done = job.run("--state", net / "state")
        assert done.code == 2, done.err
        assert f"{net / 'state'} is on a network file system (fuse.sshfs)" in done.err
        assert "keep the record on a local disk with --state DIR" in done.err
        job.out = net / "out"
        assert "is on a network file system (fuse.sshfs)" in job.run().err
    assert not archive.associations
