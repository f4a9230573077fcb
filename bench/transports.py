"""The same corpora from one Orthanc by every transport, compared with other programs, in one run.

Quarry's runs are complete: start-up, finding, listing, fetching, digests, durable files, proof. The others
get the study UIDs without a query, fetch into files, and end with one sync; those that take seconds for each
study fetch a sample. Times depend on the machine, the ratios less: figures are medians of rounds, and each
round has a folder where files are made quickly (see bench.contenders).

    python -m bench.transports [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.peers.dcmtk import Storescp
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.process import free_port

from bench import cohorts
from bench.cohorts import SMALL, Cohort, Run, by_quarry
from bench.contenders import free, place, workspace
from dicom_quarry.model import AE

CT = replace(cohorts.CT, sample=10)
BIG = Cohort("BIG", studies=1, series=1, instances=1, pixel_bytes=1_000_000_000, sample=1)


@dataclass(frozen=True, slots=True)
class Method:
    """A program that fetches a cohort with ``work`` into a folder; None is Quarry. Slow ones get a sample."""

    transport: str
    label: str
    parallel: int
    work: Callable[[Bench, Sequence[str], Path], None] | None = None
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """The archive and the receivers that are registered in it."""

    archive: Orthanc
    quarry: AE
    storescp: Storescp

    @property
    def peer(self) -> list[str]:
        return [self.archive.ae.host, str(self.archive.ae.port)]

    def study_uids(self, accessions: Iterable[str]) -> list[str]:
        """Return the study UIDs, which the other programs need not find."""
        tags = (study["MainDicomTags"] for study in self.archive.get("/studies?expand"))
        wanted = set(accessions)
        return [one["StudyInstanceUID"] for one in tags if one["AccessionNumber"] in wanted]


COHORTS = (CT, SMALL, BIG)


def _curl(parallel: int) -> Callable[[Bench, Sequence[str], Path], None]:
    def work(bench: Bench, uids: Sequence[str], target: Path) -> None:
        accept = 'multipart/related; type=\\"application/dicom\\"; transfer-syntax=*'
        lines = [f'header = "Accept: {accept}"', "fail", "no-progress-meter"]
        for number, uid in enumerate(uids):
            lines += [f'url = "{bench.archive.base}/studies/{uid}"', f'output = "{target / str(number)}"']
        config = target / "curl"
        config.write_text("\n".join(lines))
        several = ["--parallel", "--parallel-max", str(parallel)] if parallel > 1 else []
        subprocess.run(["curl", *several, "--config", str(config)], check=True, timeout=600)
        config.unlink()

    return work


def _getscu(bench: Bench, uids: Sequence[str], target: Path) -> None:
    """DCMTK's, a process a study, as it is used."""
    for uid in uids:
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
        _run(["getscu", "-S", "+B", "-aec", bench.archive.ae.title, *keys, "-od", str(target), *bench.peer])


def _pynetdicom(bench: Bench, uids: Sequence[str], target: Path) -> None:
    """pynetdicom's SCU, all studies on one association."""
    wanted = target.with_suffix(".uids")
    wanted.write_text("\n".join(uids))
    _run([sys.executable, "-m", "bench.pynetdicom_get", *bench.peer, str(target), str(wanted)])


def _movescu(bench: Bench, uids: Sequence[str], target: Path) -> None:
    """DCMTK's, a process a study, into a storescp."""
    for uid in uids:
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
        title = bench.storescp.ae.title
        _run(["movescu", "-S", "-aec", bench.archive.ae.title, "-aem", title, *keys, *bench.peer])
    for path in bench.storescp.received.iterdir():
        path.rename(target / path.name)


def _run(command: Sequence[str]) -> None:
    root = str(Path(__file__).parent.parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "TCP_NODELAY": "1",  # DCMTK is at its best with it
    }
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=environment)


METHODS = (
    Method("wado", "quarry", 1),
    Method("wado", "curl", 1, _curl(1)),
    Method("wado", "quarry --parallel 4", 4),
    Method("wado", "curl --parallel-max 4", 4, _curl(4)),
    Method("get", "quarry", 1),
    Method("get", "quarry --parallel 4", 4),
    Method("get", "getscu", 1, _getscu, slow=True),
    Method("get", "pynetdicom", 1, _pynetdicom, slow=True),
    Method("move", "quarry", 1),
    Method("move", "quarry --parallel 4", 4),
    Method("move", "movescu, storescp", 1, _movescu, slow=True),
)


def fetch(bench: Bench, cohort: Cohort, method: Method, folder: Path) -> Run:
    """One method over one cohort, into a folder of its own; the disk is at rest before."""
    os.sync()
    if method.work is None:
        return by_quarry(cohort, _flags(bench, method), folder, "quarry")
    accessions = cohort.accessions[: cohort.sample] if method.slow else cohort.accessions
    uids = bench.study_uids(accessions)
    target = folder / "fetched"
    target.mkdir()
    began = time.monotonic()
    method.work(bench, uids, target)
    os.sync()
    seconds = time.monotonic() - began
    return _whole(cohort, method, len(uids), target, seconds)


def _flags(bench: Bench, method: Method) -> list[str]:
    parallel = ["--parallel", str(method.parallel)]
    if method.transport == "wado":
        return ["--from", bench.archive.base, *parallel]
    return [
        *("--from", str(bench.archive.ae), "--as", str(bench.quarry)),
        *("--retrieve", method.transport, *parallel),
    ]


def _whole(cohort: Cohort, method: Method, studies: int, target: Path, seconds: float) -> Run:
    """The run, if it brought what it should; a body of curl's holds a study's instances."""
    sizes = [path.stat().st_size for path in target.iterdir()]
    instances = studies * cohort.instances_per_study
    files = studies if "curl" in method.label else instances
    if len(sizes) != files or sum(sizes) < instances * cohort.pixel_bytes:
        raise SystemExit(
            f"{method.label}: {len(sizes)} files, {sum(sizes)} bytes are not {instances} instances"
        )
    return Run(studies, instances, sum(sizes), seconds)


def compare(folder: Path, rounds: int) -> Iterator[tuple[Cohort, Method, Run]]:
    """Load an archive with all cohorts, and fetch each of them by every method, in every round."""
    quarry = AE("QUARRY", "127.0.0.1", free_port())
    with ExitStack() as stack:
        storescp = stack.enter_context(Storescp(folder / "storescp"))
        archive = stack.enter_context(
            Orthanc(folder / "orthanc", destinations=[quarry, storescp.ae], options=DICOMWEB)
        )
        for cohort in COHORTS:
            archive.load(cohort.files())
        bench = Bench(archive, quarry, storescp)
        for _ in range(rounds):
            for cohort in COHORTS:
                for method in METHODS:
                    if cohort is BIG and method.parallel > 1:
                        continue
                    target = place(folder)
                    yield cohort, method, fetch(bench, cohort, method, target)
                    free(target)


Rounds = Mapping[tuple[Cohort, Method], Sequence[Run]]


def rates(runs: Rounds, cohort: Cohort, transport: str, label: str) -> list[float]:
    """Bytes a second, or studies where they are small, of every round of one method."""
    (found,) = (
        ran
        for (one, method), ran in runs.items()
        if (one, method.transport, method.label) == (cohort, transport, label)
    )
    return [run.studies_per_second if cohort is SMALL else run.megabytes_per_second for run in found]


def table(runs: Rounds) -> Iterator[str]:
    """The figures of every method: medians of the rounds."""
    for cohort in COHORTS:
        what = f"{cohort.name}: {cohort.studies} studies, {cohort.instances_per_study} instances each"
        yield f"{what:44}{'MB/s':>9}{'studies/s':>11}{'studies':>9}{'peak MB':>9}"
        for method in (method for one, method in runs if one is cohort):
            ran = runs[cohort, method]
            rate = statistics.median(run.megabytes_per_second for run in ran)
            studies = statistics.median(run.studies_per_second for run in ran)
            peak = max(run.peak for run in ran)
            memory = f"{peak / 1e6:9.0f}" if peak else f"{'–':>9}"
            name = f"  {method.transport:5} {method.label:36}"
            yield f"{name}{rate:9.0f}{studies:11.1f}{ran[0].studies:9}{memory}"


@dataclass(frozen=True, slots=True)
class Goal:
    """Quarry's rate, or its ratio to another method's, to be reached."""

    cohort: Cohort
    transport: str
    label: str
    least: float
    other: str = ""


_FOUR = "quarry --parallel 4"

GOALS = (
    Goal(CT, "wado", _FOUR, 0.6, "curl --parallel-max 4"),
    Goal(CT, "wado", "quarry", 0.6, "curl"),
    Goal(BIG, "wado", "quarry", 0.6, "curl"),
    Goal(SMALL, "wado", _FOUR, 100),
    *(
        Goal(cohort, "get", label, least, other)
        for least, other in ((3.0, "pynetdicom"), (1.0, "getscu"))
        for cohort, label in ((CT, _FOUR), (CT, "quarry"), (SMALL, _FOUR), (SMALL, "quarry"), (BIG, "quarry"))
    ),
)


def judged(runs: Rounds) -> Iterator[str]:
    """Yield the goals and what was reached; a ratio is the median of those of single rounds."""
    yield f"{'goal':66}{'at least':>9}{'found':>9}"
    for goal in GOALS:
        mine = rates(runs, goal.cohort, goal.transport, goal.label)
        others = rates(runs, goal.cohort, goal.transport, goal.other) if goal.other else [1.0] * len(mine)
        ratios = [one / other for one, other in zip(mine, others, strict=True)]
        found = statistics.median(ratios)
        what = f"to {goal.other}" if goal.other else "studies a second"
        verdict = "" if found >= goal.least else "  missed"
        spread = f"  ({min(ratios):.2f} to {max(ratios):.2f})"
        yield (
            f"{goal.cohort.name:6}{goal.transport:5} {goal.label:22}{what:32}{goal.least:9.1f}{found:9.2f}"
            f"{spread}{verdict}"
        )
    peak = max(run.peak for ran in runs.values() for run in ran) / 1e6
    yield f"{'peak memory of all runs, MB':66}{'< 200':>9}{peak:9.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    options = parser.parse_args()
    runs: dict[tuple[Cohort, Method], list[Run]] = {}
    with workspace(None) as folder:
        for cohort, method, run in compare(folder.resolve(), options.rounds):
            runs.setdefault((cohort, method), []).append(run)
    print("\n".join([*table(runs), "", *judged(runs)]))


if __name__ == "__main__":
    main()
