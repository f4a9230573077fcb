"""``quarry stop``: from another terminal, by folder, all at once, without waiting for a move's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, quarry
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port, wait_for

STUDIES = generate_studies(3, seed=9, images=3)


@pytest.fixture
def archive() -> GatedArchive:
    gated = GatedArchive(STUDIES)
    gated.hold_after = 4
    return gated


def begin(work: Path, archive: GatedArchive) -> tuple[object, ...]:
    cohort, port = work / "cohort.csv", free_port()
    cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    receiver = f"QUARRY@127.0.0.1:{port}"
    return ("extract", cohort, "--from", archive.ae, "--as", receiver, "--to", work / "out")


@pytest.mark.parametrize("which", [("out",), ("--all",)])
def test_what_is_in_flight_is_finished(work: Path, archive: GatedArchive, which: tuple[str]) -> None:
    with archive:
        command = begin(work, archive)
        with Running(work / "log", *command) as job:
            wait_for(archive.held.is_set, "the archive to hold")
            with Running(work / "stopping", "stop", *which, cwd=work) as stopping:
                wait_for(
                    lambda: "finishing the studies being transferred" in stopping.output, "stop to have asked"
                )
                assert not job.ended
                archive.open()
                assert stopping.wait() == 0
                assert "stopped. To continue: quarry resume " in stopping.output
            assert job.wait() == 4
        files = len(list((work / "out").rglob("*.dcm")))
        assert files == 6, "two studies whole, the third not begun"
        assert quarry(*command).code == 0


def test_now_means_that_what_is_in_flight_is_cancelled(work: Path, archive: GatedArchive) -> None:
    with archive:
        command = begin(work, archive)
        with Running(work / "log", *command) as job:
            wait_for(archive.held.is_set, "the archive to hold")
            stopped = quarry("stop", "--now", work / "out")
            assert stopped.code == 0
            assert "cancelling" in stopped.out
            assert job.wait() == 4
        archive.open()
        assert quarry(*command).code == 0


def test_nothing_runs(work: Path) -> None:
    assert "no job is running" in quarry("stop", "--all").out
    missing = quarry("stop", work / "nowhere")
    assert missing.code == 2
    assert "holds no job" in missing.err
