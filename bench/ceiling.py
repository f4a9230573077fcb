"""An archive's ceiling, and Quarry as a share of it: the same studies out of the same Orthanc.

The minimal client knows the study UIDs and drops what arrives (``bench.minimal_client``). Quarry's run is
whole: start-up, finding, listing, digests, durable files, proof, reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.peers.orthanc import Orthanc

from bench.cohorts import Cohort, Run, by_quarry
from bench.contenders import free, place
from bench.results import Table, machine, median
from dicom_quarry.model import AE

TRANSPORTS = ("move", "get", "wado")
_NAMES = {"move": "C-MOVE", "get": "C-GET", "wado": "WADO-RS"}


@dataclass(frozen=True, slots=True)
class Pair:
    """The minimal client's run and Quarry's, each with the archive's processor time meanwhile in seconds."""

    ceiling: Run
    ceiling_archive: float
    quarry: Run
    quarry_archive: float

    @property
    def share(self) -> float:
        return self.ceiling.seconds / self.quarry.seconds


@dataclass(frozen=True, slots=True)
class Site:
    """An archive that holds the cohorts, and the receiver that it knows."""

    archive: Orthanc
    quarry: AE

    def busy(self) -> float:
        """Return the archive's processor time so far, in seconds."""
        times = psutil.Process(self.archive.pid).cpu_times()
        return float(times.user + times.system)

    def study_uids(self, cohort: Cohort) -> list[str]:
        """Return the study UIDs of a cohort, which the minimal client need not find."""
        wanted = set(cohort.accessions)
        tags = (study["MainDicomTags"] for study in self.archive.get("/studies?expand"))
        return [one["StudyInstanceUID"] for one in tags if one["AccessionNumber"] in wanted]

    def flags(self, transport: str, parallel: int) -> list[str]:
        """Return Quarry's flags."""
        if transport == "wado":
            return ["--from", self.archive.base, "--parallel", str(parallel)]
        addresses = ["--from", str(self.archive.ae), "--as", str(self.quarry)]
        return [*addresses, "--retrieve", transport, "--parallel", str(parallel)]


def pair(site: Site, cohort: Cohort, transport: str, parallel: int, folder: Path) -> Pair:
    """Run both, one after the other, with the disk at rest before each."""
    os.sync()
    before = site.busy()
    ceiling = _by_minimal_client(site, cohort, transport, parallel, folder)
    between = site.busy()
    target = place(folder)
    quarry = by_quarry(cohort, site.flags(transport, parallel), target, "quarry")
    after = site.busy()
    free(target)
    return Pair(ceiling, between - before, quarry, after - between)


def _by_minimal_client(site: Site, cohort: Cohort, transport: str, parallel: int, folder: Path) -> Run:
    uids = folder / f"{cohort.name}.uids"
    uids.write_text("\n".join(site.study_uids(cohort)))
    archive = site.archive.base if transport == "wado" else str(site.archive.ae)
    command = [sys.executable, "-m", "bench.minimal_client", transport, archive]
    done = subprocess.run(
        [*command, str(site.quarry), str(parallel), str(uids)], check=True, capture_output=True, timeout=600
    )
    found = json.loads(done.stdout)
    expected = cohort.studies * cohort.instances_per_study
    if found["size"] < expected * cohort.pixel_bytes or found["instances"] not in (0, expected):
        raise SystemExit(f"{cohort.name} by {transport}: {found} are not {expected} instances")
    return Run(cohort.studies, expected, found["size"], found["seconds"], busy=found["busy"])


def pairs(
    site: Site, cohorts: Sequence[Cohort], parallels: Sequence[int], folder: Path
) -> Iterator[tuple[Cohort, str, int, Pair]]:
    """Yield a pair of runs for every cohort, transport and number at once."""
    for cohort in cohorts:
        for transport in TRANSPORTS:
            for parallel in parallels:
                yield cohort, transport, parallel, pair(site, cohort, transport, parallel, folder)


def tables(found: Sequence[tuple[Cohort, str, int, Pair]]) -> Iterator[Table]:
    """Yield a table for each cohort: medians of the rounds."""
    header = ["", "ceiling", "Quarry", "share", "client, ms", "archive, ms", "Quarry, ms", "archive, ms"]
    for cohort in dict.fromkeys(one[0] for one in found):
        rows = []
        for transport, parallel in dict.fromkeys(one[1:3] for one in found if one[0] is cohort):
            runs = [one[3] for one in found if one[:3] == (cohort, transport, parallel)]
            rows.append([f"{_NAMES[transport]}, {parallel} at once", *_cells(cohort, runs)])
        size = cohort.instances * cohort.series
        yield Table(
            f"ceiling-{cohort.name}",
            f"{cohort.studies} studies of {size} instances of {cohort.pixel_bytes / 1e3:,.0f} kB",
            header,
            rows,
            (
                f"Ceiling and Quarry, start-up included, in {'studies/s' if cohort.is_small else 'MB/s'}.",
                "Processor time is that of one study: of the minimal client and the archive, then of Quarry "
                "(start-up and reports included) and the archive.",
            ),
            machine(),
        )


def _cells(cohort: Cohort, runs: Sequence[Pair]) -> list[str]:
    def rate(run: Run) -> float:
        return run.studies_per_second if cohort.is_small else run.megabytes_per_second

    each = 1e3 / cohort.studies
    return [
        f"{median(rate(one.ceiling) for one in runs):,.0f}",
        f"{median(rate(one.quarry) for one in runs):,.0f}",
        f"{median(one.share for one in runs):.2f}",
        *(
            f"{median(values) * each:.1f}"
            for values in (
                [one.ceiling.busy for one in runs],
                [one.ceiling_archive for one in runs],
                [one.quarry.busy for one in runs],
                [one.quarry_archive for one in runs],
            )
        ),
    ]
