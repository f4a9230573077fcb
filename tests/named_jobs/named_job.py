"""A job with a name: its commands, as a user types them in the folder of its quarry.toml."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Self

from dicom_quarry.api.jobs import read_job_status
from dicom_quarry.demo.dimse_operations import RetrieveOperation, Tally
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.opening import open_named
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.status import JobStatus
from tests.e2e.command import Done, Running, quarry
from tests.e2e.job_runs import Job, accessions
from tests.peers.process import wait_for
from tests.scripted import Fault, ScriptedArchive

STUDIES = generate_studies(4, seed=43, images=2)


class HoldsStudy(Fault):
    """The second study is answered when it is ``released``, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = False
        self.released = True

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        if move.query.keys["StudyInstanceUID"] == STUDIES[1].study_uid and not self.released:
            self.reached = True
            wait_for(lambda: self.released or not move.is_alive, "the end of the hold", 120)
        return False


class NamedJob:
    """``quarry extract --job NAME`` of four studies; ``hold`` keeps the second one in transfer."""

    def __init__(self, work: Path, database: str, settings: str = "") -> None:
        self.database, self.work = database, work
        self._settings = settings
        self.name = f"trial-{secrets.token_hex(4)}"
        self.hold = HoldsStudy()
        self._archive = ScriptedArchive(STUDIES, [self.hold])

    def __enter__(self) -> Self:
        archive = self._archive.__enter__()
        self._job = Job(self.work, archive, [*accessions(STUDIES), "NOWHERE"])
        self._job.configure(tables=f'[cluster]\nledger = "{self.database}"\n{self._settings}')
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.released = True
        self._archive.__exit__(None, None, None)

    @property
    def label(self) -> str:
        return f"job:{self.name}"

    @property
    def out(self) -> Path:
        return self._job.out

    @property
    def place(self) -> ClusterPlace:
        return open_named(self.name)

    def count_queries(self) -> int:
        """Return the number of queries for studies that the archive has had."""
        return sum(seen.kind == "find" and seen.level == "STUDY" for seen in self._archive.log)

    def status(self) -> JobStatus:
        """Read its status in this process, as ``quarry status`` does."""
        return read_job_status(self.place)

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.database)

    def command(self, *options: object) -> list[object]:
        return self._job.command("--job", self.name, *options)

    def run(self, *options: object) -> Done:
        return quarry(*self.command(*options))

    def run_in_folder(self, out: Path) -> Done:
        """Run the same cohort as a job in a folder."""
        return quarry(*self._job.command("--to", out))

    def start(self, *options: object) -> Running:
        """Start it; it waits for the second study."""
        self.hold.reached = self.hold.released = False
        return Running(self.work / "output.txt", *self.command(*options))
