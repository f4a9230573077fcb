"""Memory stays flat, however many instances pass and however large one is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.command import PATIENCE, Running, files, outcomes
from tests.e2e.demo_process import Content, DemoProcess
from tests.peers.process import free_port, wait_for

LIMIT = 200_000_000


def extracted(work: Path, content: Content, *options: object) -> tuple[int, Path]:
    """The peak of the command in bytes, and the folder that it filled."""
    work.mkdir(exist_ok=True)
    cohort, out, port = work / "cohort.csv", work / "out", free_port()
    accessions = [study.accession for study in content.made()]
    cohort.write_text("\n".join(["Accession", *accessions]) + "\n")
    peak = 0
    started = time.monotonic()
    with DemoProcess(work / "demo", content, destination=port) as archive:
        command = ("extract", cohort, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
        with Running(work / "output.txt", *command, *options, anew=True) as running:

            def ended() -> bool:
                nonlocal peak
                peak = max(peak, running.peak())
                return running.ended

            wait_for(ended, "the end", PATIENCE)
            assert running.wait() == 0
    size = sum((out / name).stat().st_size for name in files(out))
    print(
        f"{content}: peak {peak / 1e6:.0f} MB for {size / 1e6:.0f} MB in {time.monotonic() - started:.0f} s"
    )
    assert outcomes(out) == [("complete", "all_listed_stored")] * len(accessions)
    assert peak > 10_000_000, "nothing was measured"
    return peak, out


@pytest.mark.slow
def test_many_small_instances(work: Path) -> None:
    few, _ = extracted(work / "few", Content(studies=10, images=20), "--parallel", 4)
    many, out = extracted(work / "many", Content(studies=100, images=20), "--parallel", 4)
    assert len(files(out)) == 2000
    assert many < LIMIT
    assert many < few + 25_000_000, "it grows with the number of instances"


@pytest.mark.slow
def test_one_large_instance(work: Path) -> None:
    # 256 frames of 8 MiB: 2 GiB, which the archive makes while it sends.
    peak, out = extracted(work, Content(studies=1, images=1, frames=256))
    (name,) = files(out)
    assert (out / name).stat().st_size > 2 << 30
    assert peak < LIMIT
    (out / name).unlink()
