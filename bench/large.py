"""Large things, and how time and memory grow with them: ``make bench-large``.

One instance of up to 4 GB, a series of up to 5,000 instances, a study of up to 2,000 series, each a whole
``quarry extract`` over WADO-RS from an archive that makes its study while it sends it; and a table of up to
a million rows, read, checked and entered into a ledger. Without ``--full`` a quarter of each.

    python -m bench.large [--full] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from tests.peers.process import Server, free_port, listens

from bench import million_ledger
from bench.cohorts import Cohort, by_quarry
from bench.contenders import free, place, workspace
from bench.large_archive import STUDY
from bench.measured_process import measured
from bench.results import Table, machine, show

_SMALL = 64 * 64 * 2
_STEPS = (1 / 8, 1 / 4, 1 / 2, 1)
_QUICK = 4

#: Title, unit, and the cohort of the full size.
_KINDS = {
    "instance": ("One instance", "GB", Cohort("INSTANCE", 1, 1, 1, 4_000_000_000, 1)),
    "instances": ("Instances in one series", "", Cohort("INSTANCES", 1, 1, 5_000, _SMALL, 1)),
    "series": ("Series in one study", "", Cohort("SERIES", 1, 2_000, 1, _SMALL, 1)),
}


class LargeArchive(Server):
    """The archive with one large study, in a process of its own."""

    label: ClassVar[str] = "large archive"

    def __init__(self, folder: Path, cohort: Cohort) -> None:
        super().__init__(folder, "archive")
        self._cohort = cohort
        self.port = free_port()

    def command(self) -> Sequence[str]:
        sizes = (self._cohort.series, self._cohort.instances, self._cohort.pixel_bytes)
        return [sys.executable, "-m", "bench.large_archive", str(self.port), *map(str, sizes)]

    def start(self) -> LargeArchive:
        # The process runs in its own folder, and must find the bench.
        paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
        super().start()
        return self

    def is_ready(self) -> bool:
        return listens(self.port)


def _scaled(kind: str, share: float) -> Cohort:
    full = _KINDS[kind][2]
    sizes = {
        "instance": (1, 1, round(full.pixel_bytes * share / 2) * 2),
        "instances": (1, round(full.instances * share), _SMALL),
        "series": (round(full.series * share), 1, _SMALL),
    }
    return Cohort(full.name, 1, *sizes[kind], 1)


def study_curve(kind: str, shares: Sequence[float], folder: Path) -> Table:
    """Fetch the study at several sizes."""
    title, unit, _ = _KINDS[kind]
    rows = []
    for share in shares:
        cohort = _scaled(kind, share)
        target = place(folder)
        with LargeArchive(target / "archive", cohort) as archive:
            flags = ["--from", f"http://127.0.0.1:{archive.port}/dicom-web"]
            run = by_quarry(cohort, flags, target, "quarry", keys=("StudyInstanceUID", [STUDY]))
        size = f"{cohort.pixel_bytes / 1e9:.2f} GB" if unit else f"{cohort.instances_per_study:,}"
        each = run.seconds / cohort.instances_per_study * 1e3 if not unit else 0.0
        rate = f"{run.megabytes_per_second:,.0f} MB/s" if unit else f"{each:.2f} ms each"
        rows.append([size, f"{run.seconds:.1f}", rate, f"{run.busy:.1f}", f"{run.peak / 1e6:.0f}"])
        free(target)
    header = ["", "seconds", "rate", "processor, s", "peak MB"]
    return Table(f"large-{kind}", f"{title}, over WADO-RS", header, rows, machine=machine())


def table_curve(shares: Sequence[float], folder: Path) -> Table:
    """Read tables of several lengths, and enter them into a ledger."""
    rows = []
    for share in shares:
        count = round(1_000_000 * share)
        target = place(folder)
        table, out = target / "cohort.csv", target / "out"
        million_ledger.write_table(table, 1, count)
        read = measured(million_ledger.read, table, out)
        entered = measured(million_ledger.enter, table, out)
        each = f"{entered.seconds / count * 1e6:.0f} µs"
        peaks = [f"{one.peak / 1e6:.0f}" for one in (read, entered)]
        rows.append([f"{count:,}", f"{read.seconds:.1f}", peaks[0], f"{entered.seconds:.1f}", peaks[1], each])
    header = ["rows", "read, s", "peak MB", "read and entered, s", "peak MB", "a row"]
    return Table("large-table", "Rows of a cohort", header, rows, machine=machine())


def curves(folder: Path, share: float) -> Iterator[Table]:
    """Yield every table; ``share`` is the part of the full size."""
    shares = [step * share for step in _STEPS]
    for kind in _KINDS:
        yield study_curve(kind, shares, folder)
    yield table_curve(shares, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="up to the full sizes")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    with workspace(None) as folder:
        # The registry keeps jobs there, and these belong to no user.
        os.environ["XDG_STATE_HOME"] = str(folder.resolve() / "home")
        show(curves(folder.resolve(), 1 if options.full else 1 / _QUICK), write=options.write)


if __name__ == "__main__":
    main()
