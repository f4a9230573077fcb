"""Quarry compared with the usual shell loop, both against one Orthanc, in one run.

The loop starts a DCMTK findscu and a movescu for every row, into a DCMTK storescp. It runs over a sample of
the rows, so its figures are rates; Quarry's run over all rows, start-up and verification included. Times
depend on the machine; the ratios less.

    python -m bench.extraction [--parallel 4] [--keep DIR]
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pydicom
from tests.peers.corpus import study_files
from tests.peers.dcmtk import Storescp
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

from bench.contenders import place, workspace
from dicom_quarry.model import AE


@dataclass(frozen=True, slots=True)
class Cohort:
    """So many alike studies, of which the loop takes the first few."""

    name: str
    studies: int
    series: int
    instances: int
    pixel_bytes: int
    sample: int

    @property
    def accessions(self) -> list[str]:
        return [f"{self.name}{number:05d}" for number in range(self.studies)]

    @property
    def instances_per_study(self) -> int:
        return self.series * self.instances

    def files(self) -> Iterator[bytes]:
        for number, accession in enumerate(self.accessions):
            yield from study_files(
                f"{self.name}-P{number}",
                accession,
                series=self.series,
                instances=self.instances,
                pixel_bytes=self.pixel_bytes,
            )


SMALL = Cohort("SMALL", studies=200, series=1, instances=5, pixel_bytes=64 * 64 * 2, sample=40)
CT = Cohort("CT", studies=40, series=2, instances=25, pixel_bytes=512 * 512 * 2, sample=4)


@dataclass(frozen=True, slots=True)
class Run:
    """One run with its time in seconds; ``peak`` is the largest resident set, in bytes."""

    studies: int
    instances: int
    size: int
    seconds: float
    peak: int = 0

    @property
    def studies_per_second(self) -> float:
        return self.studies / self.seconds

    @property
    def instances_per_second(self) -> float:
        return self.instances / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.size / self.seconds / 1e6


def by_quarry(cohort: Cohort, flags: Sequence[str], folder: Path, name: str) -> Run:
    """One ``quarry extract`` over the whole cohort, in a process of its own, into a folder of that name."""
    table = folder / f"{cohort.name}.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["Accession"], *([accession] for accession in cohort.accessions)])
    target = folder / name
    quarry = str(Path(sys.executable).with_name("quarry"))
    command = [quarry, "extract", str(table), *flags, "--to", str(target)]
    with (folder / f"{name}.log").open("wb") as log:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        peak = 0
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(0.02)
        seconds = time.monotonic() - began
    if child.returncode:
        raise SystemExit(f"quarry ended with {child.returncode}:\n{Path(log.name).read_text()[-3000:]}")
    files = list(target.rglob("*.dcm"))
    return _checked(cohort, cohort.studies, files, seconds, peak)


def _resident(pid: int) -> int:
    """The largest resident set of a process so far, in bytes; ru_maxrss begins with ours (getrusage(2))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def by_loop(cohort: Cohort, archive: AE, receiver: Storescp, folder: Path) -> Run:
    """findscu and movescu for every row, as in a shell script."""
    peer = [archive.host, str(archive.port)]
    began = time.monotonic()
    for accession in cohort.accessions[: cohort.sample]:
        answers = folder / "answers"
        answers.mkdir()
        keys = [
            "-k",
            "QueryRetrieveLevel=STUDY",
            "-k",
            f"AccessionNumber={accession}",
            "-k",
            "StudyInstanceUID",
        ]
        _run(["findscu", "-S", "-aec", archive.title, *keys, "-X", "-od", str(answers), *peer])
        for answer in answers.iterdir():
            uid = pydicom.dcmread(answer, force=True).StudyInstanceUID
            keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
            _run(["movescu", "-S", "-aec", archive.title, "-aem", receiver.ae.title, *keys, *peer])
        shutil.rmtree(answers)
    seconds = time.monotonic() - began
    return _checked(cohort, cohort.sample, list(receiver.received.iterdir()), seconds)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def _checked(cohort: Cohort, studies: int, files: list[Path], seconds: float, peak: int = 0) -> Run:
    """The run, if it brought what it should: a fast run that lost something is no result."""
    expected = studies * cohort.instances_per_study
    if len(files) != expected:
        raise SystemExit(f"{cohort.name}: {len(files)} instances arrived, not {expected}")
    return Run(studies, expected, sum(path.stat().st_size for path in files), seconds, peak)


def _empty(receiver: Storescp) -> None:
    for path in receiver.received.iterdir():
        path.unlink()


def compare(folder: Path, parallel: int) -> list[tuple[Cohort, Run, Run]]:
    """Load an archive with both cohorts and run both ways over each."""
    quarry = AE("QUARRY", "127.0.0.1", free_port())
    rows = []
    with ExitStack() as stack:
        loop = stack.enter_context(Storescp(folder / "loop"))
        archive = stack.enter_context(Orthanc(folder / "orthanc", destinations=[quarry, loop.ae]))
        for cohort in (SMALL, CT):
            archive.load(cohort.files())
        for cohort in (SMALL, CT):
            flags = ["--from", str(archive.ae), "--as", str(quarry), "--parallel", str(parallel)]
            fast = by_quarry(cohort, flags, place(folder), "quarry")
            slow = by_loop(cohort, archive.ae, loop, folder)
            _empty(loop)
            rows.append((cohort, fast, slow))
    return rows


def table(rows: list[tuple[Cohort, Run, Run]], parallel: int) -> str:
    """The figures for a terminal."""
    lines = [f"{'':34}{'studies/s':>10}{'instances/s':>13}{'MB/s':>8}{'seconds':>9}{'peak MB':>9}"]
    for cohort, fast, slow in rows:
        lines.append(f"{cohort.name}: {cohort.instances_per_study} instances a study")
        for name, run in ((f"quarry --parallel {parallel}", fast), ("findscu and movescu per row", slow)):
            what = f"  {name}, {run.studies} rows"
            peak = f"{run.peak / 1e6:9.0f}" if run.peak else f"{'–':>9}"
            lines.append(
                f"{what:34}{run.studies_per_second:10.1f}{run.instances_per_second:13.0f}"
                f"{run.megabytes_per_second:8.1f}{run.seconds:9.1f}{peak}"
            )
        lines.append(f"{'  ratio':34}{fast.studies_per_second / slow.studies_per_second:10.1f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parallel", type=int, default=4, help="moves at once (default 4)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave everything there")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(workspace(None))
        print(table(compare(folder.resolve(), options.parallel), options.parallel))


if __name__ == "__main__":
    main()
