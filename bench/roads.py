"""The same corpora from the same Orthanc by every road, beside what else fetches by that road, in one run.

Quarry's runs are whole: start-up, finding, listing, fetching, digests, durable files, proof. The others get
the study UIDs for nothing, fetch into files, and end with one sync. Times depend on the machine; the ratios
less.

    python -m bench.roads [--keep DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.peers.dcmtk import Storescp
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.process import free_port

from bench.extraction import CT, SMALL, Cohort, Run, by_quarry
from dicom_quarry.model import AE

BIG = Cohort("BIG", studies=1, series=1, instances=1, pixel_bytes=1_000_000_000, sample=1)


@dataclass(frozen=True, slots=True)
class Way:
    """One way to fetch a cohort; ``work`` fetches into a folder, None is Quarry."""

    road: str
    label: str
    parallel: int
    work: Callable[[Bench, Cohort, Path], None] | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """The archive, and the receivers that it knows."""

    archive: Orthanc
    quarry: AE
    storescp: Storescp

    @property
    def peer(self) -> list[str]:
        return [self.archive.ae.host, str(self.archive.ae.port)]

    def study_uids(self, cohort: Cohort) -> list[str]:
        """The studies of a cohort, which the others need not find."""
        tags = (study["MainDicomTags"] for study in self.archive.get("/studies?expand"))
        wanted = set(cohort.accessions)
        return [one["StudyInstanceUID"] for one in tags if one["AccessionNumber"] in wanted]


def _curl(parallel: int) -> Callable[[Bench, Cohort, Path], None]:
    def work(bench: Bench, cohort: Cohort, target: Path) -> None:
        accept = 'multipart/related; type=\\"application/dicom\\"; transfer-syntax=*'
        lines = [f'header = "Accept: {accept}"', "fail", "no-progress-meter"]
        for number, uid in enumerate(bench.study_uids(cohort)):
            lines += [f'url = "{bench.archive.base}/studies/{uid}"', f'output = "{target / str(number)}"']
        config = target / "curl"
        config.write_text("\n".join(lines))
        several = ["--parallel", "--parallel-max", str(parallel)] if parallel > 1 else []
        subprocess.run(["curl", *several, "--config", str(config)], check=True, timeout=600)
        config.unlink()

    return work


def _getscu(bench: Bench, cohort: Cohort, target: Path) -> None:
    """DCMTK's, a process a study, as it is used."""
    for uid in bench.study_uids(cohort):
        keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}"]
        _run(["getscu", "-S", "+B", "-aec", bench.archive.ae.title, *keys, "-od", str(target), *bench.peer])


def _pynetdicom(bench: Bench, cohort: Cohort, target: Path) -> None:
    """pynetdicom's SCU, all studies on one association."""
    uids = target.with_suffix(".uids")
    uids.write_text("\n".join(bench.study_uids(cohort)))
    _run([sys.executable, "-m", "bench.getting", *bench.peer, str(target), str(uids)])


def _movescu(bench: Bench, cohort: Cohort, target: Path) -> None:
    """DCMTK's, a process a study, into a storescp."""
    for uid in bench.study_uids(cohort):
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


WAYS = (
    Way("wado", "quarry", 1),
    Way("wado", "curl", 1, _curl(1)),
    Way("wado", "quarry --parallel 4", 4),
    Way("wado", "curl --parallel-max 4", 4, _curl(4)),
    Way("get", "quarry", 1),
    Way("get", "quarry --parallel 4", 4),
    Way("get", "getscu", 1, _getscu),
    Way("get", "pynetdicom", 1, _pynetdicom),
    Way("move", "quarry", 1),
    Way("move", "quarry --parallel 4", 4),
    Way("move", "movescu, storescp", 1, _movescu),
)


def fetch(bench: Bench, cohort: Cohort, way: Way, folder: Path) -> Run:
    """One way over one cohort, into a folder of its own; the disk is at rest before."""
    os.sync()
    name = f"{cohort.name}-{way.road}-{way.label.partition(' ')[0]}-{way.parallel}"
    if way.work is None:
        return by_quarry(cohort, _flags(bench, way), folder, name)
    target = folder / name
    target.mkdir()
    began = time.monotonic()
    way.work(bench, cohort, target)
    os.sync()
    seconds = time.monotonic() - began
    return _whole(cohort, target, seconds)


def _flags(bench: Bench, way: Way) -> list[str]:
    parallel = ["--parallel", str(way.parallel)]
    if way.road == "wado":
        return ["--from", bench.archive.base, *parallel]
    return [
        *("--from", str(bench.archive.ae), "--as", str(bench.quarry)),
        *("--retrieve", way.road, *parallel),
    ]


def _whole(cohort: Cohort, target: Path, seconds: float) -> Run:
    """The run, if it brought what it should; a body of curl's holds a study's instances."""
    size = sum(path.stat().st_size for path in target.iterdir())
    expected = cohort.studies * cohort.instances_per_study
    if size < expected * cohort.pixel_bytes:
        raise SystemExit(f"{target.name}: {size} bytes are not {expected} instances")
    return Run(cohort.studies, expected, size, seconds)


def compare(folder: Path) -> Iterator[tuple[Cohort, Way, Run]]:
    """Load an archive with all cohorts, and fetch each of them in every way."""
    quarry = AE("QUARRY", "127.0.0.1", free_port())
    with ExitStack() as stack:
        storescp = stack.enter_context(Storescp(folder / "storescp"))
        archive = stack.enter_context(
            Orthanc(folder / "orthanc", destinations=[quarry, storescp.ae], options=DICOMWEB)
        )
        for cohort in (CT, SMALL, BIG):
            archive.load(cohort.files())
        bench = Bench(archive, quarry, storescp)
        for cohort in (CT, SMALL, BIG):
            for way in WAYS:
                if cohort is BIG and way.parallel > 1:
                    continue
                yield cohort, way, fetch(bench, cohort, way, folder)


def table(runs: Sequence[tuple[Cohort, Way, Run]]) -> Iterator[str]:
    """The figures, and Quarry's ratio to each other way of the same road and as many at once."""
    for cohort in dict.fromkeys(cohort for cohort, _, _ in runs):
        what = f"{cohort.name}: {cohort.studies} studies, {cohort.instances_per_study} instances each"
        yield f"{what:44}{'MB/s':>9}{'studies/s':>11}{'seconds':>9}{'peak MB':>9}{'quarry is':>12}"
        mine = [(way, run) for one, way, run in runs if one is cohort]
        for way, run in mine:
            quarry = next(
                ran
                for other, ran in mine
                if other.work is None and (other.road, other.parallel) == (way.road, way.parallel)
            )
            peak = f"{run.peak / 1e6:9.0f}" if run.peak else f"{'–':>9}"
            ratio = f"{run.seconds / quarry.seconds:11.2f}x" if way.work else ""
            yield (
                f"  {way.road:5} {way.label:36}{run.megabytes_per_second:9.0f}{run.studies_per_second:11.1f}"
                f"{run.seconds:9.2f}{peak}{ratio:>12}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave everything there")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="quarry-bench-"))
        )
        print("\n".join(table(list(compare(folder.resolve())))))


if __name__ == "__main__":
    main()
