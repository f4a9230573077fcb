"""Types commands as a user would, in this process, against the demo archive."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_quarry.cli import main as command
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import DemoStudy
from tests.peers.process import free_port


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: exit code, and both streams."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything that the user read, lines joined by single spaces: messages may be wrapped."""
        return " ".join((self.out + "\n" + self.err).split())


class Shell:
    """A user at a terminal in a folder of her own, with an archive that knows her computer as QUARRY."""

    def __init__(
        self,
        folder: Path,
        archive: DemoArchive,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.folder = folder
        self.archive = archive
        self.out = folder / "out"
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        port = free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", port)
        self.remote = f"{archive.title}@{archive.host}:{archive.port}"
        self.local = f"QUARRY@127.0.0.1:{port}"

    def quarry(self, *words: object) -> Done:
        """Run a command with exactly these words, in the user's folder."""
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr("sys.argv", ["quarry", *map(str, words)])
            handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            with pytest.raises(SystemExit) as ended:
                command.main()
            for number, handler in handlers.items():  # a process of its own takes its handlers with it
                signal.signal(number, handler)
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.err, printed.err
        code = ended.value.code
        return Done(code if isinstance(code, int) else int(bool(code)), printed.out, printed.err)

    def table(self, text: str, name: str = "cohort.csv") -> Path:
        """Write a table into the user's folder."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def extract(self, *words: object, table: str = "cohort.csv") -> Done:
        """Type ``quarry extract TABLE`` with the addresses and ``--to out``, then these words."""
        return self.quarry("extract", table, "--from", self.remote, "--as", self.local, "--to", "out", *words)

    def plan(self, *words: object, table: str = "cohort.csv") -> Done:
        """Type ``quarry plan TABLE`` with the archive's address, then these words."""
        return self.quarry("plan", table, "--from", self.remote, *words)

    def report(self) -> list[dict[str, str]]:
        """report.csv, row by row."""
        with (self.out / "report.csv").open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))

    def outcomes(self) -> list[str]:
        """The outcome of every row."""
        return [row["quarry_outcome"] for row in self.report()]


@contextmanager
def shell_with(
    studies: list[DemoStudy],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shell]:
    """Start a demo archive with these studies, for a test that needs its own."""
    with DemoArchive(studies) as archive:
        yield Shell(folder, archive, capsys, monkeypatch)
