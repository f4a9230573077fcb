"""A site with several workers, as a user starts them: each in its own folder, with its own AE title."""

from __future__ import annotations

import csv
import gzip
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg

from dicom_quarry.demo.dimse_operations import MoveOperation, RetrieveOperation
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy, generate_studies
from tests.e2e.command import Done, Running, quarry, until
from tests.e2e.job_runs import accessions
from tests.peers.process import free_port, wait_for
from tests.scripted import ScriptedArchive

STUDIES = generate_studies(12, seed=20, images=2)


class CountingArchive(ScriptedArchive):
    """Counts the moves at once; while it is on ``hold`` none of them ends.

    With ``breaks_off`` a move stops behind its first instance while it is on hold, not before it.
    """

    def __init__(self, studies: list[DemoStudy]) -> None:
        super().__init__(studies)
        self.now = self.most = 0
        self.hold = self.breaks_off = False
        self._lock = threading.Lock()

    def deliver(
        self, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]
    ) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            if not self.breaks_off:
                self._wait(move)
            super().deliver(move, address, instances)
        finally:
            with self._lock:
                self.now -= 1

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        if sent and self.breaks_off:
            self._wait(operation)
        return super().should_continue(operation, sent)

    def _wait(self, move: RetrieveOperation) -> None:
        wait_for(lambda: not self.hold or self.ended(move), "the end of the hold", 120)


class Site:
    """An archive, a database and a root folder; jobs are entered in the folder ``work``."""

    def __init__(self, work: Path, url: str, studies: list[DemoStudy], *, settings: str = "") -> None:
        self.work, self.root, self.url = work, work / "root", url
        self._settings = settings
        self.studies = studies
        self.archive = CountingArchive(studies)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.archive)
        self.root.mkdir()
        self._write_settings(self.work)
        assert quarry("cluster", "init", self.url).code == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.hold = False
        self._stack.close()

    def _write_settings(self, folder: Path) -> None:
        peer = f"{self.archive.title}@{self.archive.host}:{self.archive.port}"
        (folder / "quarry.toml").write_text(
            f'[archive.main]\naddress = "{peer}"\nsettle = 0.3\n{self._settings}\n'
            f'[cluster]\nledger = "{self.url}"\nvanished-after = 3\n'
        )

    def start_worker(
        self, title: str, *options: object, is_known: bool = True, command: Sequence[str] = ()
    ) -> Running:
        """Start ``quarry worker``; return when it is ready. ``is_known``: the archive knows its title.

        ``command`` is that of another build.
        """
        port, folder = free_port(), self.work / title
        folder.mkdir(exist_ok=True)
        self._write_settings(folder)
        if is_known:
            self.archive.destinations[title] = ("127.0.0.1", port)
        words = ["worker", "--as", f"{title}@127.0.0.1:{port}", "--root", self.root, *options]
        running = Running(folder / "output.txt", *words, cwd=folder, command=command)
        worker = self._stack.enter_context(running)
        wait_for(lambda: "ready: " in worker.output or worker.ended, "the worker", 60)
        assert "ready: " in worker.output, worker.output
        return worker

    def extract(self, name: str, studies: list[DemoStudy], *options: object) -> list[object]:
        """Return the command that enters a job and watches it."""
        cohort = self.work / f"{name}.csv"
        cohort.write_text("\n".join(["Accession", *accessions(studies)]) + "\n")
        return ["extract", cohort, "--from", "main", "--job", name, "--to", self.root / name, *options]

    def run(self, name: str, studies: list[DemoStudy], *options: object) -> Done:
        return quarry(*self.extract(name, studies, *options))

    def start(self, name: str, studies: list[DemoStudy], *options: object) -> Running:
        """Start it; return at once."""
        return Running(self.work / f"{name}.txt", *self.extract(name, studies, *options))

    def enter(self, name: str, studies: list[DemoStudy], *options: object) -> None:
        """Enter a job in which nothing was fetched yet, while there is no worker."""
        port = free_port()
        self.archive.destinations["DESK"] = ("127.0.0.1", port)
        self.archive.hold = True
        with self.start(name, studies, "--as", f"DESK@127.0.0.1:{port}", *options) as running:
            until(running, "a move", lambda: self.archive.now)
            running.interrupt()
            running.interrupt()
            assert running.wait() == 4, running.output
        self.archive.hold = False
        self.archive.moves.clear()

    def worker_states(self) -> str:
        """Return what the workers say in the list of workers."""
        with psycopg.connect(self.url) as connection:
            return "; ".join(state for (state,) in connection.execute("SELECT state FROM quarry.workers"))

    def outcomes(self, name: str) -> list[str]:
        """Return the outcome of every row in report.csv."""
        with (self.root / name / "report.csv").open(newline="") as file:
            return [row["quarry_outcome"] for row in csv.DictReader(file)]

    def files(self, name: str) -> Mapping[str, int]:
        """Return the sizes of the files in the manifest, which are on the disk."""
        with gzip.open(self.root / name / "manifest.csv.gz", "rt", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {row["path"]: (self.root / name / row["path"]).stat().st_size for row in rows}
        assert len(found) == len(rows)
        return found
