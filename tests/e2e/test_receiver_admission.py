"""While a job runs its receiver is for that job: nobody else's instances get onto the disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, check_folder, files, outcomes, until
from tests.e2e.paused_archive import GatedArchive
from tests.peers.corpus import write_study
from tests.peers.process import free_port

STUDIES = generate_studies(2, seed=7, images=3)


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    with GatedArchive(STUDIES) as server:
        yield server


def storescu(path: Path, port: int, *, called: str = "QUARRY") -> str:
    """Send a file as a stranger would; what storescu said of it."""
    command = ["storescu", "-v", "-R", "-aet", "STRANGER", "-aec", called, "127.0.0.1", str(port), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_what_nobody_asked_for_is_refused(archive: GatedArchive, work: Path) -> None:
    stranger = write_study(work / "other", patient_id="STRANGER-1", accession="S1", instances=1)[0]
    cohort, out, port = work / "cohort.csv", work / "out", free_port()
    cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    archive.hold_after = 1
    command = ("extract", cohort, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
    with Running(work / "output.txt", *command) as running:
        until(running, "the archive to hold", archive.held.is_set)
        refused = storescu(stranger.path, port)
        rejected = storescu(stranger.path, port, called="STORESCP")
        during = files(out)
        archive.open()
        assert running.wait() == 0
        said = running.output
    # Refused: not authorised (PS3.7 C.5.20), which this storescu has no word for.
    assert "Association Accepted" in refused and "Status: 0x124)" in refused, refused
    assert "Association Rejected" in rejected and "Called AE Title Not Recognized" in rejected, rejected
    assert len(during) == 1
    assert outcomes(out) == [("complete", "all_listed_stored")] * 2
    assert len(files(out)) == 6
    check_folder(out)
    kept = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in kept if stranger.sop_uid.encode() in path.read_bytes()]
    assert "STRANGER-1" not in said and "S1" not in said
    assert "1 instance refused" in said
