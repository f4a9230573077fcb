"""The live display, on a terminal that is one; Ctrl-C is typed there."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import PATIENCE, QUARRY, quarry
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port, wait_for

STUDIES = generate_studies(3, seed=8, images=3)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a pseudo-terminal, and all that it has shown."""

    def __init__(self, *command: object, program: str = str(QUARRY)) -> None:
        self._ours, theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        self._read = b""
        self.shown = ""
        # setsid makes it the controlling terminal, from which ^C becomes a signal.
        self.child = subprocess.Popen(
            ["setsid", "--ctty", program, *map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )
        os.close(theirs)

    def shows(self) -> str:
        try:
            while data := os.read(self._ours, 65536):
                self._read += data
        except OSError:  # nothing now, or the command has ended
            pass
        return _CONTROL.sub("", self._read.decode(errors="replace"))

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.shows(), text, PATIENCE)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait for the end; the exit code."""
        # It must be read from, or the command waits for room to write.
        wait_for(lambda: (self.shows(), self.child.poll())[1] is not None, "the end", PATIENCE)
        self.shown = self.shows()
        os.close(self._ours)
        assert self.child.returncode is not None
        return self.child.returncode


def test_progress_and_control_c(work: Path) -> None:
    cohort, port = work / "cohort.csv", free_port()
    cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES), "NOBODY"]) + "\n")
    with GatedArchive(STUDIES) as archive:
        archive.destinations["QUARRY"] = ("127.0.0.1", port)
        archive.hold_after = 4
        receiver = f"QUARRY@127.0.0.1:{port}"
        command = ("extract", cohort, "--from", archive.ae, "--as", receiver, "--to", work / "out")
        terminal = Terminal(*command)
        try:
            terminal.wait_for("4 rows; Accession as AccessionNumber")
            terminal.wait_for("2 of 4 rows")
            keys = f"patient {STUDIES[1].patient.patient_id}, accession {STUDIES[1].accession}"
            terminal.wait_for(f"row 2, {keys}: 1 of 3 instances")
            terminal.wait_for("running for ")
            terminal.wait_for("1 of 3 studies complete")
            terminal.type("\x03")
            terminal.wait_for("Press Ctrl-C again")
            archive.open()
            code = terminal.end()
        finally:
            terminal.child.kill()
            terminal.child.wait()
        assert code == 4
        assert "run the same command again to continue" in terminal.shown
        assert f"to continue: quarry resume {work / 'out'}" in terminal.shown
        assert quarry(*command).code == 1
