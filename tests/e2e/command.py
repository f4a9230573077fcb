"""The ``quarry`` command as a user runs it: a process of its own, its output in a file or a pipe."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.cohort.xlsx_table import open_xlsx
from tests.e2e.command_server import CommandServer, StartedCommand
from tests.namespaces import Host
from tests.peers.process import wait_for

QUARRY = Path(sys.executable).with_name("quarry")

#: Long for a machine that has other things to do, and only reached by a test that has failed.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def quarry(*arguments: object, cwd: Path | None = None) -> Done:
    """Run a command to its end, in a process of its own."""
    words = [str(argument) for argument in arguments]
    if _needs_interpreter():
        return _run_anew(words, cwd)
    code, out, err = command_server().run(words, cwd, PATIENCE)
    return _done(code, out.decode(), err.decode())


def _needs_interpreter() -> bool:
    """Return True if a variable of the environment makes the interpreter itself start in another way."""
    started, now = command_server().environment, os.environ
    names = {name for name in (*started, *now) if name.startswith("PYTHON")}
    return any(started.get(name) != now.get(name) for name in names)


@cache
def command_server() -> CommandServer:
    """Return the server of this process's tests."""
    return CommandServer()


def path_for_shell() -> str:
    """Return the PATH with which ``quarry`` is the tested one, run by the command server."""
    return os.pathsep.join([str(command_server().folder), str(QUARRY.parent), os.environ["PATH"]])


def _run_anew(words: list[str], cwd: Path | None) -> Done:
    done = subprocess.run(
        [str(QUARRY), *words], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return _done(done.returncode, done.stdout, done.stderr)


def _done(code: int, out: str, err: str) -> Done:
    assert "Traceback" not in err, err
    return Done(code, out, err)


class Running:
    """A command that runs; ended with the context, if the test did not see to that.

    With ``anew`` it is not forked from a process that has imported everything, whose memory it would share.
    ``command`` is that of another build. ``host`` is a host of the test's, this one by default. ``prepare``
    is a module whose function of that name is called before.
    """

    def __init__(
        self,
        output: Path,
        *arguments: object,
        cwd: Path | None = None,
        anew: bool = False,
        command: Sequence[str] = (),
        host: Host | None = None,
        prepare: str = "",
    ) -> None:
        self._output = output
        self._child: subprocess.Popen[bytes] | StartedCommand
        words = [str(argument) for argument in arguments]
        with output.open("ab") as stream:
            if anew or command or _needs_interpreter():
                started = [*(command or [str(QUARRY)]), *words]
                self._child = subprocess.Popen(started, cwd=cwd, stdout=stream, stderr=stream)
            else:
                out = stream.fileno()
                self._child = command_server().start(words, cwd, out, out, host, prepare)
        self.pid = self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if isinstance(self._child, StartedCommand):
            self._child.close()

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    @property
    def output(self) -> str:
        """What it has said so far, on both streams."""
        return self._output.read_text()

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit code, once there is one."""
        code = self._child.wait(patience)
        assert "Traceback" not in self.output, self.output
        return code

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait(PATIENCE)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.signal(signal.SIGINT)

    def terminate(self) -> None:
        """What scripts, systemd and a shutdown do."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def peak(self) -> int:
        """The largest resident size so far in bytes, 0 once it has ended."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def until(running: Running, what: str, condition: Any) -> None:
    """Wait for a condition that must come true before the command ends."""

    def holds() -> bool:
        true = bool(condition())
        assert true or not running.ended, f"ended before {what}:\n{running.output}"
        return true

    wait_for(holds, what, PATIENCE)


def status(folder: Path) -> dict[str, Any]:
    """``quarry status --json``; empty while there is no job yet."""
    done = quarry("status", folder, "--json")
    if done.code == 2:
        return {}
    facts: dict[str, Any] = json.loads(done.out)
    return {**facts, "exit code": done.code}


Row = dict[str, str]


def report(folder: Path) -> list[Row]:
    """report.csv, row by row."""
    return _table((folder / "report.csv").read_text(encoding="utf-8"))


def workbook(path: Path) -> list[Row]:
    """The first sheet of a workbook, row by row."""
    table = open_xlsx(InputSource(path))
    return [dict(zip(table.header, cells, strict=True)) for _, cells in table.rows()]


def studies(folder: Path) -> list[Row]:
    """studies.csv, study by study."""
    return _table((folder / "studies.csv").read_text(encoding="utf-8"))


def manifest(folder: Path) -> list[Row]:
    """manifest.csv.gz, instance by instance."""
    return _table(gzip.decompress((folder / "manifest.csv.gz").read_bytes()).decode())


def _table(text: str) -> list[Row]:
    return list(csv.DictReader(text.splitlines(keepends=True)))


def outcomes(folder: Path) -> list[tuple[str, str]]:
    """Outcome and code of every row."""
    return [(row["quarry_outcome"], row["quarry_code"]) for row in report(folder)]


def files(folder: Path) -> set[str]:
    """Every file of the DICOM tree, relative to its root; what Quarry keeps for itself is left out."""
    found = set()
    for path, folders, names in os.walk(folder):
        if ".quarry" in folders:
            folders.remove(".quarry")
        where = Path(path).relative_to(folder)
        found |= {str(where / name) for name in names if where.parts}
    return found


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the tree."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files(folder)}


def temporary(folder: Path) -> list[Path]:
    """What must be gone at the end of a job."""
    return [path for path in folder.rglob("*") if path.suffix == ".part" or path.name.endswith(".tmp")]


def check_folder(folder: Path) -> None:
    """What holds of every finished folder: manifest and disk agree, and nobody else may look."""
    listed = manifest(folder)
    on_disk = digests(folder)
    assert {row["path"]: row["sha256"] for row in listed} == on_disk
    assert len(listed) == len(on_disk)
    assert all((folder / row["path"]).stat().st_size == int(row["bytes"]) for row in listed)
    assert sum(int(row["stored"]) for row in studies(folder)) == len(listed)
    for name in ("report.csv", "studies.csv", "manifest.csv.gz"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600, name
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700, path
        elif path.name != "state-folder":
            assert path.stat().st_mode & 0o077 == 0, path
    assert not temporary(folder)
