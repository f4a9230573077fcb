"""A site with several workers, as a user starts them: each in its own folder, with its own AE title.

With a network each worker is on a host of its own.
"""

from __future__ import annotations

import csv
import gzip
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg

from dicom_quarry.demo.dimse_operations import MoveOperation, RetrieveOperation
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy, generate_studies
from tests.e2e.command import Done, Running, quarry, until
from tests.e2e.job_runs import accessions
from tests.namespaces import Host, Network
from tests.peers.process import free_port, wait_for
from tests.scripted import ScriptedArchive

STUDIES = generate_studies(12, seed=20, images=2)


class CountingArchive(ScriptedArchive):
    """Counts the moves at once; while it is on ``hold`` none of them ends but those of ``let_through``.

    With ``breaks_off`` a move stops behind its first instance while it is on hold, not before it. Queries at
    the levels in ``keeps`` wait; ``kept`` counts them.
    """

    def __init__(self, studies: list[DemoStudy], host: str = "127.0.0.1", *, title: str = "SCRIPTED") -> None:
        super().__init__(studies, title=title)
        self.host = host  # of this computer and the hosts of the test alone
        self.now = self.most = self.kept = 0
        self.ended_at = 0.0
        self.hold = self.breaks_off = False
        self.let_through: set[str] = set()
        self.keeps: Collection[str] = ()
        self._lock = threading.Lock()

    def on_request(self, kind: str, query: QueryIdentifier) -> None:
        super().on_request(kind, query)
        if kind == "find" and query.level in self.keeps:
            self.kept += 1
            wait_for(lambda: not self.keeps or self.stopped.is_set(), "the end of the queries", 120)

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
                self.ended_at = time.monotonic()

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        if sent and self.breaks_off:
            self._wait(operation)
        return super().should_continue(operation, sent)

    def _wait(self, move: RetrieveOperation) -> None:
        uids = {*move.query.values("StudyInstanceUID")}
        wait_for(
            lambda: not self.hold or uids <= self.let_through or self.ended(move), "the end of the hold", 120
        )


class Site:
    """An archive, a database and a root folder; jobs are entered in the folder ``work``.

    ``limits`` is the site.toml of the hosts of a ``network``.
    """

    def __init__(
        self,
        work: Path,
        url: str,
        studies: list[DemoStudy],
        *,
        settings: str = "",
        network: Network | None = None,
        limits: str = "",
        settle: float = 0.3,
    ) -> None:
        self.work, self.root, self.url = work, work / "root", url
        #: That of the workers, if their role is another one.
        self.worker_url = url
        self._settings = f"settle = {settle}\n{settings}"
        self.studies = studies
        self.network = network
        self.archive = CountingArchive(studies, network.archive if network else "127.0.0.1")
        self._stack = ExitStack()
        self._etc = work / "etc"
        (self._etc / "quarry").mkdir(parents=True)
        (self._etc / "quarry" / "site.toml").write_text(limits)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.archive)
        self.root.mkdir()
        self.write_settings(self.work)
        assert quarry("cluster", "init", self.url).code == 0
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.hold, self.archive.keeps = False, ()
        self._stack.close()

    def write_settings(self, folder: Path, tables: str = "", url: str = "") -> None:
        peer = f"{self.archive.title}@{self.archive.host}:{self.archive.port}"
        (folder / "quarry.toml").write_text(
            f'[archive.main]\naddress = "{peer}"\n{self._settings}\n'
            f'[cluster]\nledger = "{url or self.url}"\nvanished-after = 3\n{tables}\n'
        )

    def host_of(self, title: str) -> Host | None:
        """Return the host of a worker, None where all of them are on this one."""
        return self.network.host(title, self._etc) if self.network else None

    def start_worker(
        self,
        title: str,
        *options: object,
        is_known: bool = True,
        command: Sequence[str] = (),
        tables: str = "",
        prepare: str = "",
        root: Path | None = None,
    ) -> Running:
        """Start ``quarry worker``; return when it is ready. ``is_known``: the archive knows its title.

        ``command`` is that of another build, ``tables`` are further ones of its quarry.toml. ``prepare`` is
        a module that changes it, ``root`` another root folder.
        """
        port, folder, host = free_port(), self.work / title, self.host_of(title)
        folder.mkdir(exist_ok=True)
        self.write_settings(folder, tables, self.worker_url)
        address = host.address if host else "127.0.0.1"
        if is_known:
            self.archive.destinations[title] = (address, port)
        words = ["worker", "--as", f"{title}@{address}:{port}", "--root", root or self.root, *options]
        output = folder / "output.txt"
        output.unlink(missing_ok=True)
        running = Running(output, *words, cwd=folder, command=command, host=host, prepare=prepare)
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

    def start(
        self,
        name: str,
        studies: list[DemoStudy],
        *options: object,
        cwd: Path | None = None,
        prepare: str = "",
    ) -> Running:
        """Start it; return at once. ``prepare`` is a module that changes it."""
        words = self.extract(name, studies, *options)
        return Running(self.work / f"{name}.txt", *words, cwd=cwd, prepare=prepare)

    def enter(self, name: str, studies: list[DemoStudy], *options: object) -> None:
        """Enter a job in which nothing was fetched yet, while there is no worker."""
        port = free_port()
        self.archive.destinations["DESK"] = ("127.0.0.1", port)
        self.archive.hold = True
        with self.start(name, studies, "--as", f"DESK@127.0.0.1:{port}", *options) as running:
            until(running, "a move", lambda: self.archive.now)
            assert quarry("stop", f"job:{name}", "--now").code == 0
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
