"""Quarry's receiver compared with others, interleaved in one run, each a process of its own on this computer.

The sender streams requests that were encoded beforehand, so that the receiver is what is measured. Figures
depend on the machine and on what else it does; the ratios less. A job's receiver is through when the studies
that were sent are durable. Goals are judged by the median of the ratios of single rounds, whose parts were
measured one right after the other.

    python -m bench.receiver [--rounds 5] [--quick] [--only TEXT] [--write]
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench.contenders import (
    Contender,
    Dcm4che,
    Files,
    Pynetdicom,
    QuarryJob,
    QuarryReceive,
    Receiving,
    Result,
    Storescp,
    StorescpRaw,
    dcm4che,
    run,
    workspace,
)
from bench.store_sender import Load

_PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
_BEGIN, _END = "<!-- bench-receiver: begin -->\n", "<!-- bench-receiver: end -->\n"

_OTHERS = (StorescpRaw, Storescp, Pynetdicom)
_ALL: tuple[Contender, ...] = (QuarryJob, QuarryReceive, *_OTHERS, Files)
_CT, _SMALL, _LARGE = 512 * 512 * 2, 64 * 64 * 2, 100_000_000


@dataclass(frozen=True, slots=True)
class Work:
    """A load and its receivers."""

    name: str
    load: Load
    contenders: tuple[Contender, ...] = _ALL


WORKS = (
    Work("CT 0.5 MB, 1 association", Load(_CT, 1, 200)),
    Work("CT 0.5 MB, 4 associations", Load(_CT, 4, 60)),
    Work("CT 0.5 MB, 8 associations", Load(_CT, 8, 30), (QuarryJob, StorescpRaw, Pynetdicom)),
    Work("9 kB, 1 association", Load(_SMALL, 1, 800)),
    Work("9 kB, 4 associations", Load(_SMALL, 4, 200)),
    Work("9 kB, 8 associations", Load(_SMALL, 8, 100), (QuarryJob, StorescpRaw, Pynetdicom)),
    Work("100 MB, 1 association", Load(_LARGE, 1, 4), (QuarryJob, StorescpRaw, Files)),
    Work("100 MB, 8 associations", Load(_LARGE, 8, 1), (QuarryJob,)),
)

Seconds = dict[Contender, float]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio to reach, of one round's seconds."""

    work: str
    against: str
    least: float
    ratio: Callable[[Seconds], float]
    ours: type[Receiving] = QuarryJob


GOALS = (
    Goal("CT 0.5 MB, 1 association", "storescp +B", 0.6, lambda s: s[StorescpRaw] / s[QuarryJob]),
    Goal("CT 0.5 MB, 4 associations", "storescp +B", 0.5, lambda s: s[StorescpRaw] / s[QuarryJob]),
    Goal("CT 0.5 MB, 4 associations", "pynetdicom", 5.0, lambda s: s[Pynetdicom] / s[QuarryJob]),
    Goal("9 kB, 1 association", "storescp, not durable", 1.0, lambda s: s[Storescp] / s[QuarryJob]),
    Goal("9 kB, 4 associations", "pynetdicom", 6.0, lambda s: s[Pynetdicom] / s[QuarryJob]),
    Goal("100 MB, 1 association", "storescp +B", 1.0, lambda s: s[StorescpRaw] / s[QuarryJob]),
    Goal(
        "CT 0.5 MB, 1 association",
        "plain files with fsync",
        0.85,
        lambda s: s[Files] / s[QuarryReceive],
        QuarryReceive,
    ),
    Goal(
        "CT 0.5 MB, 4 associations",
        "plain files with fsync, 4 threads",
        0.85,
        lambda s: s[Files] / s[QuarryReceive],
        QuarryReceive,
    ),
)
_MEMORY_GOAL = 120e6


class Measured:
    """Results by work, round by round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[dict[Contender, Result]]] = {}

    def round(self, work: Work, folder: Path) -> None:
        results = {contender: run(contender, work.load, folder) for contender in work.contenders}
        self.rounds.setdefault(work.name, []).append(results)

    def seconds(self, work: str, contender: Contender) -> float:
        return median(results[contender].seconds for results in self.rounds[work])

    def busy(self, work: str, contender: Contender) -> float:
        return median(results[contender].busy for results in self.rounds[work])

    def peak(self, work: str, contender: Contender) -> int:
        return max(results[contender].peak for results in self.rounds[work])

    def ratio(self, goal: Goal) -> float:
        rounds = self.rounds[goal.work]
        return median(goal.ratio({who: one.seconds for who, one in results.items()}) for results in rounds)


def tables(works: list[Work], measured: Measured) -> str:
    """All that was measured, in Markdown."""
    lines = [
        "| work | receiver | instances/s | MB/s | to Quarry's | processor ms/instance | peak MB |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for work in works:
        total, ours = work.load.total, measured.seconds(work.name, QuarryJob)
        for contender in work.contenders:
            seconds = measured.seconds(work.name, contender)
            peak = measured.peak(work.name, contender)
            lines.append(
                f"| {work.name} | {contender.label} | {total / seconds:.0f} "
                f"| {work.load.size / seconds / 1e6:.0f} | {ours / seconds:.2f} "
                f"| {measured.busy(work.name, contender) / total * 1e3:.2f} "
                f"| {f'{peak / 1e6:.0f}' if peak else '–'} |"
            )
    return "\n".join([*lines, "", *_goals(works, measured)]) + "\n"


def _goals(works: list[Work], measured: Measured) -> list[str]:
    lines = ["| receiver | work | against | goal | reached | |", "|---|---|---|--:|--:|---|"]
    names = {work.name for work in works}
    for goal in GOALS:
        if goal.work in names:
            ratio = measured.ratio(goal)
            verdict = "met" if ratio >= goal.least else "**not met**"
            ours = f"{goal.ours.label} | {goal.work}"
            lines.append(f"| {ours} | {goal.against} | ≥ {goal.least} | {ratio:.2f} | {verdict} |")
    peak = max(measured.peak(name, QuarryJob) for name in names)
    verdict = "met" if peak < _MEMORY_GOAL else "**not met**"
    limit = f"< {_MEMORY_GOAL / 1e6:.0f} MB | {peak / 1e6:.0f}"
    lines.append(f"| {QuarryJob.label} | memory, all of the above | | {limit} | {verdict} |")
    return lines


def circumstances(rounds: int) -> str:
    """Machine, versions, date."""
    cpu = re.search(r"model name\s*:\s*(.+)", _text("/proc/cpuinfo"))
    storescp = subprocess.run(["storescp", "--version"], capture_output=True, text=True, check=False).stdout
    dcmtk = re.search(r"v(\d\S+)", storescp)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, medians of {rounds} rounds; {_cores()} cores of "
        f"{cpu[1] if cpu else platform.machine()}, Linux {platform.release()}, "
        f"load average {_text('/proc/loadavg').split(' ')[0]} at the end; "
        f"Python {platform.python_version()}, "
        f"Quarry {version('dicom-quarry')}, pynetdicom {version('pynetdicom')}, "
        f"DCMTK {dcmtk[1] if dcmtk else '?'}.\n"
    )


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else "? "


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def write_page(text: str) -> None:
    """Put the tables between the marks in docs/performance.md."""
    page = _PAGE.read_text(encoding="utf-8")
    before, rest = page.split(_BEGIN)
    _, after = rest.split(_END)
    _PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median counts (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--only", default="", metavar="TEXT", help="works whose name contains this")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="measure on this file system")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    works = [work for work in WORKS if options.only in work.name]
    if dcm4che():
        works = [Work(work.name, work.load, (*work.contenders, Dcm4che)) for work in works]
    measured = Measured()
    text = ""
    try:
        with workspace(options.folder) as folder:
            for number in range(rounds):
                for work in works:
                    print(f"round {number + 1} of {rounds}: {work.name}", file=sys.stderr)
                    measured.round(work, folder)
                text = f"{circumstances(number + 1)}\n{tables(works, measured)}"
    finally:
        # What was measured is worth having, also if a later round was cut short.
        print(text)
    if options.write:
        write_page(text)


if __name__ == "__main__":
    main()
