"""Quarry as a share of an archive's ceiling (bench.ceiling), then beside the usual shell loop, in one run.

The loop starts a DCMTK findscu and a movescu for every row, into a DCMTK storescp. It runs over a sample of
the rows, so its figures are rates; Quarry's run over all rows, start-up and verification included. Times
depend on the machine; the ratios less.

    python -m bench.extraction [--parallel 4] [--at-once 1,4,8] [--rounds 1] [--keep DIR] [--write]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pydicom
from tests.peers.dcmtk import Storescp
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.process import free_port

from bench.ceiling import Site, pairs
from bench.ceiling import tables as ceiling_tables
from bench.cohorts import CT, SMALL, Cohort, Run, by_quarry, checked
from bench.contenders import place, workspace
from bench.results import Table, machine, show
from dicom_quarry.model import AE


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
    return checked(cohort, cohort.sample, list(receiver.received.iterdir()), seconds)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=600)


def _empty(receiver: Storescp) -> None:
    for path in receiver.received.iterdir():
        path.unlink()


def compare(folder: Path, parallel: int, parallels: Sequence[int], rounds: int) -> Iterator[Table]:
    """Load an archive with both cohorts; run Quarry beside the archive's ceiling, and beside the loop."""
    quarry = AE("QUARRY", "127.0.0.1", free_port())
    with ExitStack() as stack:
        loop = stack.enter_context(Storescp(folder / "loop"))
        archive = stack.enter_context(
            Orthanc(folder / "orthanc", destinations=[quarry, loop.ae], options=DICOMWEB)
        )
        for cohort in (SMALL, CT):
            archive.load(cohort.files())
        site = Site(archive, quarry)
        found = [one for _ in range(rounds) for one in pairs(site, (SMALL, CT), parallels, folder)]
        yield from ceiling_tables(found)
        rows = []
        for cohort in (SMALL, CT):
            fast = by_quarry(cohort, site.flags("move", parallel), place(folder), "quarry")
            slow = by_loop(cohort, archive.ae, loop, folder)
            _empty(loop)
            rows.append((cohort, fast, slow))
        yield _table(rows, parallel)


def _table(rows: list[tuple[Cohort, Run, Run]], parallel: int) -> Table:
    header = ["", "rows", "studies/s", "MB/s", "seconds", "peak MB", "ratio"]
    lines = []
    for cohort, fast, slow in rows:
        for name, run in ((f"quarry --parallel {parallel}", fast), ("findscu and movescu per row", slow)):
            ratio = f"{run.studies_per_second / slow.studies_per_second:.1f}"
            figures = [
                f"{run.studies_per_second:.1f}",
                f"{run.megabytes_per_second:.1f}",
                f"{run.seconds:.1f}",
            ]
            peak = f"{run.peak / 1e6:.0f}" if run.peak else "–"
            lines.append([f"{cohort.name}: {name}", str(run.studies), *figures, peak, ratio])
    return Table("loop", "A whole job beside the loop of today", header, lines, machine=machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parallel", type=int, default=4, help="moves at once, beside the loop (default 4)")
    parser.add_argument("--at-once", default="1,4,8", help="beside the ceiling (default 1,4,8)")
    parser.add_argument("--rounds", type=int, default=1, help="beside the ceiling; medians (default 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave everything there")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    parallels = [int(number) for number in options.at_once.split(",")]
    with ExitStack() as stack:
        folder = (options.keep or stack.enter_context(workspace(None))).resolve()
        show(compare(folder, options.parallel, parallels, options.rounds), write=options.write)


if __name__ == "__main__":
    main()
