"""Long run with bad values, archive faults, an outage and a crash; it must end by itself and explain all.

What starts the job again after the crash is this module, as systemd or a nurse with the arrow key would: the
same command, nothing else.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tests.e2e.command import Running, files, manifest, quarry, report
from tests.peers.process import free_port

from bench.figures import Figure, Part
from bench.flaky_archive import FlakyProcess, archived
from bench.process_monitor import query

INSTANCES = 3
_OUTAGE = 20.0

#: Of a hundred rows: two cannot be used, one matches nothing, one repeats the row before.
_BAD = (("0000001", ""), ("0000002", "12345*"), ("0000003", "12345678901234567"), ("", "1.23E+15"))
_NOBODY = ("9999999", "999991899999")


def _rows(count: int) -> Iterator[tuple[tuple[str, str], str]]:
    """Rows, each with the outcome that it has to come to."""
    studies = iter(archived(count, INSTANCES))
    row = ("", "")
    for number in range(count):
        match number % 100:
            case 10 | 60:
                yield _BAD[number // 50 % len(_BAD)], "invalid_row"
            case 30:
                yield _NOBODY, "not_found"
            case 80:
                yield row, "complete"
            case _:
                study = next(studies)
                row = (study.patient.patient_id, study.accession)
                yield row, "complete"


def run(folder: Path, rows: int, parallel: int) -> Part:
    """The whole part; ``folder`` is new or empty."""
    folder.mkdir(parents=True, exist_ok=True)
    table, out, port = folder / "cohort.csv", folder / "out", free_port()
    expected = list(_rows(rows))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("EMPI", "Accession"), *(row for row, _ in expected)])
    began = time.monotonic()
    # The repository is where the archive's module is found.
    with FlakyProcess(folder / "archive", rows, INSTANCES, destination=port) as archive:
        command = ["extract", table, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out]
        command += ["--parallel", parallel, "--skip-bad-rows"]
        codes = _live(folder, command, archive, out / ".quarry" / "ledger.db", rows)
        faults = archive.faults
    figures = _figures(out, [word for _, word in expected], codes)
    minutes = (time.monotonic() - began) / 60
    figures += [
        Figure("moves that went wrong", f"{faults}"),
        Figure("from start to end", f"{minutes:.1f} min"),
    ]
    return Part(
        "ordeal", f"The long one: {rows:,} rows, faults, an outage, a crash, --parallel {parallel}", figures
    )


def _live(
    folder: Path, command: Sequence[object], archive: FlakyProcess, ledger: Path, rows: int
) -> list[int]:
    """An outage at a third, a crash at two thirds; the exit code of the run that ended."""
    with Running(folder / "output-0.txt", *command) as job:
        _until(job, ledger, rows // 3)
        archive.kill()
        time.sleep(_OUTAGE)
        archive.start()
        _until(job, ledger, 2 * rows // 3)
        job.kill()
    with Running(folder / "output-1.txt", *command) as job:
        return [job.wait(24 * 3600)]


def _until(job: Running, ledger: Path, studies: int) -> None:
    proved = 0
    while proved < studies:
        if job.ended:
            raise SystemExit(f"the job ended early:\n{job.output[-3000:]}")
        time.sleep(1.0)
        with suppress(Exception):
            proved = query(ledger, "select count(*) from tasks where state = 'concluded'")[0][0]


def _figures(out: Path, expected: Sequence[str], codes: Sequence[int]) -> list[Figure]:
    rows_reported = report(out)
    found = [row["quarry_outcome"] for row in rows_reported]
    other = sum(one != word for one, word in zip(found, expected, strict=True))
    unexplained = sum(not (row["quarry_code"] and row["quarry_reason"]) for row in rows_reported)
    listed, on_disk = {row["path"] for row in manifest(out)}, files(out)
    moves = query(out / ".quarry" / "ledger.db", "select count(*), count(distinct task_id) from attempts")[0]
    words = ", ".join(f"{count:,} {word}" for word, count in Counter(found).most_common())
    return [
        Figure("rows", words),
        _none("rows with another outcome than they have to have", other),
        _none("rows without a code and a sentence", unexplained),
        _none("files that the manifest does not list, or lists without a file", len(listed ^ on_disk)),
        _none("files that quarry verify does not find as they were", quarry("verify", out, "--quick").code),
        Figure("exit code", f"{codes[-1]}", "1: exceptions are explained", met=codes[-1] == 1),
        Figure("retrievals, of studies", f"{moves[0]:,}, {moves[1]:,}"),
    ]


def _none(what: str, found: int) -> Figure:
    return Figure(what, f"{found:,}", "none", met=not found)
