"""A table of a million rows: read, entered, worked on, counted, updated and reported, without an archive."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.e2e.command import QUARRY

from bench import million_ledger as large
from bench.figures import Figure, Part, at_most
from bench.measured_process import Measured, measured
from bench.process_monitor import size_of
from dicom_quarry import api

_MEGABYTES = 300
_CHOICE, _USABLE = 10.0, 2.0


def run(folder: Path, rows: int) -> Part:
    """The whole part; ``folder`` is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    table, out = folder / "cohort.csv", folder / "out"
    large.write_table(table, 1, rows)
    figures = [*_beginning(table, out), *_working(out, rows), *_looking(out)]
    figures += _again(folder, table, out, rows)
    return Part("million", f"A table of {rows:,} rows", figures)


def _beginning(table: Path, out: Path) -> list[Figure]:
    read = measured(large.read, table, out)
    entered = measured(large.enter, table, out)
    size = size_of(out / ".quarry" / "ledger.db")
    return [
        Figure("read and checked", f"{read.seconds:.1f} s"),
        _memory("  memory", read),
        Figure("read, checked and entered into the ledger", f"{entered.seconds:.1f} s"),
        _memory("  memory", entered),
        Figure("  largest write-ahead log", f"{entered.result / 1e6:,.0f} MB"),
        Figure("  ledger", f"{size / 1e6:,.0f} MB, {size / read.result:,.0f} bytes a row"),
    ]


def _working(out: Path, rows: int) -> list[Figure]:
    measured(large.fill, out, rows)
    size = size_of(out / ".quarry" / "ledger.db")
    studies = rows * (large.ENDED + large.WAIT + large.LATER) // 100
    ended = rows * large.ENDED // 100
    taken = measured(large.verbs, out).result
    figures = [
        Figure(f"{ended:,} studies ended, {studies - ended:,} wait", f"ledger {size / 1e6:,.0f} MB"),
    ]
    for name, (usual, longest) in taken.items():
        found = f"{usual * 1e3:.1f} ms, at most {longest * 1e3:.1f} ms"
        if name.startswith("next"):
            figures.append(Figure(name, found, f"at most {_CHOICE:.0f} ms", met=usual * 1e3 <= _CHOICE))
        else:
            figures.append(Figure(name, found))
    return figures


def _looking(out: Path) -> list[Figure]:
    counted = measured(large.count, out)
    began = time.monotonic()
    subprocess.run([str(QUARRY), "status", str(out)], check=False, capture_output=True)
    status = time.monotonic() - began
    written = measured(_report, out)
    return [
        at_most("counts", counted.result, _USABLE, "s", 2),
        at_most("quarry status, the whole command", status, 2 * _USABLE, "s", 2),
        Figure("all reports", f"{written.seconds:.0f} s, {written.result / 1e6:,.0f} MB"),
        _memory("  memory", written),
    ]


def _report(out: Path) -> int:
    api.report(out)
    return size_of(out / "report.csv") + size_of(out / "studies.csv") + size_of(out / "manifest.csv.gz")


def _again(folder: Path, table: Path, out: Path, rows: int) -> list[Figure]:
    begun = measured(large.begin_again, table, out)
    newer = folder / "newer.csv"
    large.write_table(newer, rows // 1000 + 1, rows + rows // 1000)
    updated = measured(large.enter, newer, out)
    return [
        Figure("from a restart to the first question", f"{begun.seconds:.1f} s"),
        _memory("  memory", begun),
        Figure("--update with a table moved by a thousandth", f"{updated.seconds:.0f} s"),
        _memory("  memory", updated),
        Figure("  largest write-ahead log", f"{updated.result / 1e6:,.0f} MB"),
        Figure("  ledger", f"{size_of(out / '.quarry' / 'ledger.db') / 1e6:,.0f} MB"),
    ]


def _memory(what: str, work: Measured[object] | Measured[int]) -> Figure:
    return Figure(
        what,
        f"{work.before / 1e6:.0f} -> {work.peak / 1e6:.0f} MB",
        f"at most {_MEGABYTES} MB",
        met=work.peak <= _MEGABYTES * 1e6,
    )
