"""Endurance: thousands of small studies in one job, with a kill -9 in the middle; is the last like the first?

The clock is the job's own: the ledger has the time of each study's proof. The report adds the processor
time for each study, which other work on the machine changes less.
"""

from __future__ import annotations

import bisect
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.command import Running
from tests.e2e.demo_process import Content, DemoProcess
from tests.peers.process import free_port

from bench.figures import Figure, Part, at_most
from bench.process_monitor import Sample, Watch, between, query, size_of

INSTANCES = 3

#: The goals: ledger bytes for a study and for an instance, and seconds to move again after a crash.
_STUDY_BYTES, _INSTANCE_BYTES, _RESTART = 1000, 200, 5.0
_FLAT = 1.10


@dataclass(frozen=True, slots=True)
class Life:
    """One process of the job, from its start to its end."""

    began: float
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Tenth:
    """A tenth of the studies, in the order of their proof; ``seconds`` and ``processor`` are for a study."""

    seconds: float
    processor: float
    resident: float


def run(folder: Path, studies: int, parallel: int) -> Part:
    """The whole part; ``folder`` is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    content = Content(studies, INSTANCES)
    table, out, port = folder / "cohort.csv", folder / "out", free_port()
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["Accession"], *([study.accession] for study in content.made())])
    with DemoProcess(folder / "archive", content, destination=port) as archive:
        command = ["extract", table, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out]
        lives = _lives(folder, [*command, "--parallel", parallel], out / ".quarry" / "ledger.db", studies)
    return Part(
        "endurance",
        f"Endurance: {studies:,} rows, {studies:,} studies of {INSTANCES} instances, --parallel {parallel}",
        _figures(out / ".quarry" / "ledger.db", lives, studies),
    )


def _lives(folder: Path, command: Sequence[object], ledger: Path, studies: int) -> list[Life]:
    """Run the job, kill it when half is done, run it to its end."""
    wal = ledger.with_name("ledger.db-wal")
    lives = []
    for number, until in enumerate((studies // 2, studies + 1)):
        began = time.time()
        with Running(folder / f"output-{number}.txt", *command) as job, Watch(job.pid, wal) as watch:
            while not job.ended and _proved(ledger) < until:
                time.sleep(1.0)
            if number == 0:
                job.kill()
            elif job.wait() != 0:
                raise SystemExit(f"the job did not end well:\n{job.output[-3000:]}")
        lives.append(Life(began, watch.samples))
    return lives


def _proved(ledger: Path) -> int:
    if not ledger.exists():
        return 0
    done = "select count(*) from tasks where state = 'concluded'"
    has_tables = query(ledger, "select count(*) from sqlite_master where name = 'schema_version'")[0][0]
    return int(query(ledger, done)[0][0]) if has_tables else 0


def _figures(ledger: Path, lives: Sequence[Life], studies: int) -> list[Figure]:
    proofs = [row[0] for row in query(ledger, "select proved_at from tasks order by proved_at")]
    if len(proofs) != studies or None in proofs:
        raise SystemExit(f"{len(proofs)} studies, not all of them proved, instead of {studies}")
    tenths = [_tenth(proofs, lives, number) for number in range(10)]
    first, last = tenths[0], tenths[-1]
    second = lives[1].began
    requested = query(ledger, "select min(started) from attempts where started > ?", second)[0][0] - second
    proved = proofs[bisect.bisect(proofs, second)] - second
    samples = [sample for life in lives for sample in life.samples]
    size = size_of(ledger)
    limit = studies * (_STUDY_BYTES + INSTANCES * _INSTANCE_BYTES)
    return [
        Figure("studies/s over all", f"{studies / _busy(proofs, lives):,.1f}"),
        _flat("ms for a study, last tenth against first", first.seconds * 1e3, last.seconds * 1e3, "ms"),
        Figure("  tenth by tenth, ms", " ".join(f"{one.seconds * 1e3:.1f}" for one in tenths)),
        _flat("processor time for a study, likewise", first.processor * 1e3, last.processor * 1e3, "ms"),
        Figure("  tenth by tenth, ms", " ".join(f"{one.processor * 1e3:.1f}" for one in tenths)),
        _flat("resident memory, last tenth against first", first.resident / 1e6, last.resident / 1e6, "MB"),
        Figure("  tenth by tenth, MB", " ".join(f"{one.resident / 1e6:.0f}" for one in tenths)),
        Figure("  largest, reports included, MB", f"{max(one.resident for one in samples) / 1e6:.0f}"),
        Figure(
            "most threads, open files", f"{max(s.threads for s in samples)}, {max(s.files for s in samples)}"
        ),
        at_most("first move after kill -9 and start", requested, _RESTART, "s", 1),
        Figure("first study proved after that", f"{proved:.1f} s"),
        at_most("ledger", size / 1e6, limit / 1e6, "MB", 1),
        Figure("  for a study with its instances", f"{size / studies:,.0f} bytes"),
        Figure("largest write-ahead log, MB", f"{max(one.wal for one in samples) / 1e6:.1f}"),
        Figure(
            "job's own log, for a study", f"{size_of(ledger.with_name('quarry.log')) / studies:,.0f} bytes"
        ),
    ]


def _flat(what: str, first: float, last: float, unit: str) -> Figure:
    found = f"{first:.1f} -> {last:.1f} {unit} ({last / max(first, 1e-9) - 1:+.1%})"
    return Figure(what, found, "at most +10 %", met=last <= first * _FLAT)


def _busy(proofs: Sequence[float], lives: Sequence[Life]) -> float:
    """Seconds from the first proof to the last, without the pause of the crash."""
    second = bisect.bisect(proofs, lives[1].began)
    return proofs[second - 1] - proofs[0] + proofs[-1] - proofs[second]


def _tenth(proofs: Sequence[float], lives: Sequence[Life], number: int) -> Tenth:
    """Measure a tenth; next to the crash, the part of it that contains the pause is left out."""
    part = len(proofs) // 10
    inside = proofs[number * part : (number + 1) * part]
    crash = bisect.bisect(inside, lives[1].began)
    inside = max(inside[:crash], inside[crash:], key=len)
    life = lives[inside[0] > lives[1].began]
    start, end = inside[0], inside[-1]
    found = between(life.samples, start, end)
    span = max(found[-1].time - found[0].time, 1e-3)
    rate = (found[-1].processor - found[0].processor) / span
    seconds = (end - start) / max(len(inside) - 1, 1)
    return Tenth(seconds, rate * seconds, sum(one.resident for one in found) / len(found))
