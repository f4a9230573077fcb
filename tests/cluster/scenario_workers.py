"""Plays a scenario of the fault matrix as a job with a name, on two workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dicom_quarry.model import AE
from tests.e2e.command import Running
from tests.faults.scenario_runner import Stage
from tests.peers.process import free_port, wait_for

TITLES = ("W1", "W2")

#: Shortens the pauses of a worker.
_SHORT = "tests.cluster.short_delays"


class ClusterStage(Stage):
    """A folder, a database, and the workers of its job, each with an AE title and a port of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        self._cluster = f'[cluster]\nledger = "{url}"\nvanished-after = 5\n'
        self._ports = {title: free_port() for title in TITLES}
        self.workers: list[Running] = []

    @property
    def root(self) -> Path:
        """The folder below which the workers write."""
        return self.folder / "root"

    @property
    def out(self) -> Path:
        return self.root / "trial"

    @property
    def destinations(self) -> dict[str, tuple[str, int]]:
        """The workers, as the archive has to know them; it does not know the process that enters the job."""
        return {title: ("127.0.0.1", port) for title, port in self._ports.items()}

    def config(self, archives: Mapping[str, AE | str], **profile: object) -> Path:
        path = super().config(archives, **profile)
        path.write_text(f"keep-free = 0\n{path.read_text()}{self._cluster}")
        return path

    @contextmanager
    def running_workers(
        self, archives: Mapping[str, AE | str], profile: Mapping[str, object], *options: object
    ) -> Iterator[None]:
        """Run the workers; in the end they finish what they have begun, and leave the list."""
        self.root.mkdir()
        settings = self.config(archives, **profile)
        with ExitStack() as stack:
            for title, port in self._ports.items():
                words = ["worker", "--as", f"{title}@127.0.0.1:{port}", "--root", self.root]
                output = self.folder / f"{title}.txt"
                worker = Running(output, *words, "--config", settings, *options, prepare=_SHORT)
                self.workers.append(stack.enter_context(worker))
            for worker in self.workers:
                wait_for(lambda one=worker: "ready: " in one.output or one.ended, "a worker", 60)  # type: ignore[misc]
                assert "ready: " in worker.output, worker.output
            yield
            for worker in self.workers:
                worker.terminate()
            for worker in self.workers:
                assert worker.wait() == 0, worker.output

    def words(self) -> str:
        """Return what the workers have said."""
        return "".join(worker.output for worker in self.workers)
