"""Tables of a bench's results: kept as JSON with the machine's description, and put into docs/performance.md.

A bench that is called with ``--write`` keeps its tables in ``bench/results``. This module makes the page:

    python -m bench.results
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from bench.figures import keep

_FOLDER = Path(__file__).parent / "results"
_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_HEADING = "## Beside the archive's ceiling and other programs"
_INTRODUCTION = (
    "From `make bench`, `make bench-peers` and `make bench-large`, called with `--write`; "
    "`python -m bench.results` makes the tables from `bench/results`. Processor time is user and system time."
)


def machine() -> str:
    """Describe this machine and its load, in one sentence."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory = psutil.virtual_memory().total / 1e9
    return (
        f"{os.cpu_count()} processors ({models[0] if models else platform.machine()}), {memory:.0f} GB, "
        f"Linux {platform.release()}, Python {platform.python_version()}; load before the run "
        f"{os.getloadavg()[0]:.1f}"
    )


@dataclass(frozen=True, slots=True)
class Table:
    """The result of one bench; the first column is text, all others are aligned right."""

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    machine: str = ""
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))

    def lines(self) -> list[str]:
        """Return the table for a terminal."""
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        table = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (self.header, *self.rows)
        ]
        return [self.title, *table, *self.notes]

    def markdown(self) -> str:
        """Return the table for a page, under its title and the description of the machine."""
        marks = ["---", *["--:"] * (len(self.header) - 1)]
        table = [f"| {' | '.join(row)} |" for row in (self.header, *self.rows)]
        table.insert(1, f"|{'|'.join(marks)}|")
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([f"### {self.title}", "", f"{self.date}, {self.machine}.", "", *table, *notes])

    def save(self) -> None:
        """Keep the table for the page."""
        _FOLDER.mkdir(exist_ok=True)
        path = _FOLDER / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(tables: Iterable[Table], *, write: bool) -> None:
    """Print tables; with ``write`` keep them, and put them into the page."""
    for table in tables:
        print("\n".join([*table.lines(), ""]), flush=True)
        if write:
            table.save()
            keep(table, _PAGE, _HEADING, _INTRODUCTION)


def median(values: Iterable[float]) -> float:
    """Return the median, 0 of nothing."""
    return statistics.median([*values] or [0.0])


def main() -> None:
    """Put every kept table into the page."""
    for path in sorted(_FOLDER.glob("*.json")):
        keep(Table(**json.loads(path.read_text(encoding="utf-8"))), _PAGE, _HEADING, _INTRODUCTION)


if __name__ == "__main__":
    main()
