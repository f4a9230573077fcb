"""Quarry beside every program that one could install instead, in one run: ``make bench-peers``.

Each gets the accession numbers of a cohort, and brings the files of its studies from the same Orthanc. A run
is a whole command, start-up included. No other program makes files durable, or compares them with the
archive's list. Those that take seconds for each study fetch a sample of the large cohorts: ``--all`` for all.

    python -m bench.peers [--rounds 3] [--all] [--write]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from tests.peers.dcmtk import Storescp
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.process import free_port

from bench.ceiling import Site
from bench.cohorts import CT, SMALL, Cohort, by_quarry
from bench.contenders import free, place, workspace
from bench.results import Table, machine, median, show
from dicom_quarry.model import AE

_ROOT = Path(__file__).parents[1]
_INSTALLED = _ROOT / "build" / "bench-peers"

#: Cohorts as parts of the two that the archive holds; the large ones are sampled by slow programs.
COHORTS = (
    replace(SMALL, studies=10, sample=10),
    replace(SMALL, sample=20),
    replace(CT, studies=2, sample=2),
    replace(CT, sample=4),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """The archive, the address to which it sends for every other program, and a DCMTK receiver."""

    site: Site
    peer: AE
    storescp: Storescp

    @property
    def archive(self) -> AE:
        return self.site.archive.ae


Work = Callable[[Bench, Path, Path], None]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that brings the studies of a table into a folder, from an ``environment`` of its own."""

    label: str
    work: Work | None = None
    environment: str = ""
    flags: tuple[str, int] = ("move", 1)
    slow: bool = True

    @property
    def is_installed(self) -> bool:
        return not self.environment or (_INSTALLED / self.environment / "stamp").exists()


_STUDY = ["-k", "QueryRetrieveLevel=STUDY"]


def _run(command: Sequence[object], folder: Path, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment | {"TCP_NODELAY": "1"} | variables,
        check=True,
        capture_output=True,
        timeout=900,
    )


def _program(environment: str, name: str) -> Path:
    return _INSTALLED / environment / "bin" / name


def _accessions(table: Path) -> list[str]:
    with table.open(newline="") as file:
        return [row["AccessionNumber"] for row in csv.DictReader(file)]


def _dicomtrolley(bench: Bench, table: Path, target: Path) -> None:
    script = _ROOT / "bench" / "peer_programs" / "by_dicomtrolley.py"
    python = _program("dicomtrolley", "python")
    _run([python, script, bench.site.archive.base, table, target], target.parent)


def _dicom_qr(bench: Bench, table: Path, target: Path) -> None:
    archive, settings = bench.archive, target.parent / "settings.json"
    dimse = {
        "server_ae_title": archive.title,
        "server_ae_ip": archive.host,
        "server_ae_port": archive.port,
        "client_ae_title": bench.peer.title,
        "client_ae_port": bench.peer.port,
        "transfer_method": "move",
    }
    values = {
        "dimse": dimse,
        "base_folder": str(target),
        "folder_template": "${PatientID}/${StudyInstanceUID}/${SeriesInstanceUID}",
        "study_columns": [{"name": "Index"}],
        "series_columns": [{"name": "Index"}],
    }
    settings.write_text(json.dumps(values))
    found = target.parent / "studies.csv"
    for command in (
        ["studyuid-from-acc-number-file", table, found],
        ["download-from-studyuid-file", "--dumpdir", target, found],
    ):
        _run([_program("dicom-qr", "dicom-qr"), *command], target.parent, DICOM_QR_SETTINGS=str(settings))


def _pacsifier(bench: Bench, table: Path, target: Path) -> None:
    archive, settings = bench.archive, target.parent / "pacsifier.json"
    values = {
        "server_address": archive.host,
        "port": archive.port,
        "server_AET": archive.title,
        "AET": bench.peer.title,
        "move_AET": bench.peer.title,
        "move_port": bench.peer.port,
        "batch_size": 1_000_000,
        "batch_wait_time": 0,
    }
    settings.write_text(json.dumps(values))
    flags = ["-c", settings, "-s", "-q", table, "-d", target]
    # It starts DCMTK's programs, not pynetdicom's of the same names.
    _run([_program("pacsifier", "pacsifier"), *flags], target.parent)


def _pynetdicom(bench: Bench, table: Path, target: Path) -> None:
    """Run its findscu and getscu for every row."""
    peer = [bench.archive.host, str(bench.archive.port), "-aec", bench.archive.title]
    app = [_program("pynetdicom", "python"), "-m", "pynetdicom"]
    for accession in _accessions(table):
        answers = target.parent / "answers"
        answers.mkdir()
        keys = [*_STUDY, "-k", f"AccessionNumber={accession}", "-k", "StudyInstanceUID"]
        _run([*app, "findscu", *peer, *keys, "-w", "-S"], answers)
        for answer in answers.iterdir():
            uid = pydicom.dcmread(answer, force=True).StudyInstanceUID
            keys = [*_STUDY, "-k", f"StudyInstanceUID={uid}"]
            _run([*app, "getscu", *peer, *keys, "-S", "-od", target], target.parent)
        shutil.rmtree(answers)


def _dcmtk(bench: Bench, table: Path, target: Path) -> None:
    """Run its findscu and movescu for every row, into a storescp that runs already."""
    peer = [bench.archive.host, str(bench.archive.port)]
    for accession in _accessions(table):
        answers = target.parent / "answers"
        answers.mkdir()
        keys = [*_STUDY, "-k", f"AccessionNumber={accession}", "-k", "StudyInstanceUID"]
        titles = ["-aec", bench.archive.title]
        _run(["findscu", "-S", *titles, *keys, "-X", "-od", answers, *peer], target.parent)
        for answer in answers.iterdir():
            uid = pydicom.dcmread(answer, force=True).StudyInstanceUID
            keys = [*_STUDY, "-k", f"StudyInstanceUID={uid}"]
            _run(["movescu", "-S", *titles, "-aem", bench.storescp.ae.title, *keys, *peer], target.parent)
        shutil.rmtree(answers)
    for path in bench.storescp.received.iterdir():
        path.rename(target / path.name)


PROGRAMS = (
    Program("Quarry, C-MOVE, --parallel 4", flags=("move", 4)),
    Program("Quarry, C-GET, --parallel 4", flags=("get", 4)),
    Program("Quarry, WADO-RS, --parallel 4", flags=("wado", 4)),
    Program("Quarry, WADO-RS", flags=("wado", 1)),
    Program("dicomtrolley, WADO-RS", _dicomtrolley, "dicomtrolley", slow=False),
    Program("dicom-qr, C-MOVE", _dicom_qr, "dicom-qr"),
    Program("PACSIFIER, C-MOVE", _pacsifier, "pacsifier"),
    Program("pynetdicom's findscu and getscu", _pynetdicom, "pynetdicom"),
    Program("DCMTK's findscu and movescu", _dcmtk),
)


def fetch(bench: Bench, cohort: Cohort, program: Program, folder: Path) -> float:
    """Run a program once; return its studies a second. Raises SystemExit if an instance is missing."""
    os.sync()
    if program.work is None:
        return by_quarry(cohort, bench.site.flags(*program.flags), folder, "quarry").studies_per_second
    table, target = folder / "cohort.csv", folder / "fetched"
    # PACSIFIER moves by patient.
    rows = [[f"{cohort.name}-P{number}", one] for number, one in enumerate(cohort.accessions)]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["PatientID", "AccessionNumber"], *rows])
    target.mkdir()
    began = time.monotonic()
    program.work(bench, table, target)
    seconds = time.monotonic() - began
    found = sum(path.stat().st_size > cohort.pixel_bytes for path in target.rglob("*") if path.is_file())
    if found < cohort.studies * cohort.instances_per_study:
        raise SystemExit(f"{program.label}: {found} instances of {cohort.studies} studies")
    return cohort.studies / seconds


def compare(folder: Path, rounds: int, *, everything: bool) -> Iterator[Table]:
    """Load an archive, and run every program over every cohort."""
    quarry, peer = (AE(title, "127.0.0.1", free_port()) for title in ("QUARRY", "PEER"))
    programs = [one for one in PROGRAMS if one.is_installed]
    for missing in set(PROGRAMS) - set(programs):
        print(f"not installed, left out: {missing.label}", file=sys.stderr)
    with ExitStack() as stack:
        storescp = stack.enter_context(Storescp(folder / "storescp"))
        known = [quarry, peer, storescp.ae]
        archive = stack.enter_context(Orthanc(folder / "orthanc", destinations=known, options=DICOMWEB))
        for loaded in (SMALL, CT):
            archive.load(loaded.files())
        bench = Bench(Site(archive, quarry), peer, storescp)
        for cohort in COHORTS:
            yield _compare(bench, cohort, programs, folder, rounds, everything=everything)


def _compare(
    bench: Bench, cohort: Cohort, programs: Sequence[Program], folder: Path, rounds: int, *, everything: bool
) -> Table:
    found: dict[Program, list[float]] = {program: [] for program in programs}
    sampled = set()
    for number in range(rounds):
        for program in programs:
            part = cohort
            if program.slow and program.work and not everything and cohort.sample < cohort.studies:
                part = replace(cohort, studies=cohort.sample)
                sampled.add(program)
                if number:
                    continue
            target = place(folder)
            found[program].append(fetch(bench, part, program, target))
            free(target)
    own = median(found[programs[0]])
    rows = []
    for program in programs:
        rate = median(found[program])
        label = f"{program.label}{' *' if program in sampled else ''}"
        rows.append([label, f"{cohort.studies / rate:.1f}", f"{rate:.1f}", f"{own / rate:.1f}"])
    runs = "One round" if rounds == 1 else f"Medians of {rounds} rounds"
    notes = [f"{runs}; the ratio is that of Quarry's first line to the program."]
    if sampled:
        notes.append(f"* One round over the first {cohort.sample} studies; the seconds are for all of them.")
    return Table(
        f"peers-{cohort.name}-{cohort.studies}",
        f"Whole commands, {cohort.description}",
        ["", "seconds", "studies/s", "ratio"],
        rows,
        notes,
        machine(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--all", action="store_true", help="every program fetches every study")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    with workspace(None) as folder:
        show(compare(folder.resolve(), options.rounds, everything=options.all), write=options.write)


if __name__ == "__main__":
    main()
