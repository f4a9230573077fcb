"""Cohorts of alike studies for the benches, and a whole ``quarry extract`` over one of them."""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.peers.corpus import study_files


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
    def description(self) -> str:
        size = f"{self.pixel_bytes / 1e3:,.0f} kB"
        return f"{self.studies} studies of {self.instances_per_study} instances of {size}"

    @property
    def is_small(self) -> bool:
        """True where studies count, not bytes."""
        return self.pixel_bytes < 100_000

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


#: The command as it runs in this environment.
QUARRY = (sys.executable, "-m", "dicom_quarry")

SMALL = Cohort("SMALL", studies=200, series=1, instances=5, pixel_bytes=64 * 64 * 2, sample=40)
CT = Cohort("CT", studies=40, series=2, instances=25, pixel_bytes=512 * 512 * 2, sample=4)


@dataclass(frozen=True, slots=True)
class Run:
    """One run; ``seconds`` on the clock, ``busy`` of processor time, ``peak`` the largest memory in bytes."""

    studies: int
    instances: int
    size: int
    seconds: float
    peak: int = 0
    busy: float = 0.0

    @property
    def studies_per_second(self) -> float:
        return self.studies / self.seconds

    @property
    def instances_per_second(self) -> float:
        return self.instances / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.size / self.seconds / 1e6


def by_quarry(
    cohort: Cohort,
    flags: Sequence[str],
    folder: Path,
    name: str,
    keys: tuple[str, Sequence[str]] | None = None,
) -> Run:
    """One ``quarry extract`` over the whole cohort, in a process of its own, into a folder of that name.

    ``keys`` are the column of the table and its values: the accession numbers, if there are none.
    """
    table = folder / f"{cohort.name}.csv"
    column, values = keys or ("Accession", cohort.accessions)
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([[column], *([value] for value in values)])
    target = folder / name
    command = [*QUARRY, "extract", str(table), *flags, "--to", str(target)]
    with (folder / f"{name}.log").open("wb") as log:
        before, began = _children_busy(), time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        peak = 0
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(0.02)
        seconds = time.monotonic() - began
    if child.returncode:
        raise SystemExit(f"quarry ended with {child.returncode}:\n{Path(log.name).read_text()[-3000:]}")
    files = list(target.rglob("*.dcm"))
    return checked(cohort, cohort.studies, files, seconds, peak, _children_busy() - before)


def _children_busy() -> float:
    """The processor time of all ended children, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _resident(pid: int) -> int:
    """The largest resident set of a process so far, in bytes; ru_maxrss begins with ours (getrusage(2))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def checked(
    cohort: Cohort, studies: int, files: list[Path], seconds: float, peak: int = 0, busy: float = 0.0
) -> Run:
    """The run, if it brought what it should: a fast run that lost something is no result."""
    expected = studies * cohort.instances_per_study
    if len(files) != expected:
        raise SystemExit(f"{cohort.name}: {len(files)} instances arrived, not {expected}")
    return Run(studies, expected, sum(path.stat().st_size for path in files), seconds, peak, busy)
