"""Two users of one computer: Alice, who runs Quarry, and Mallory, who plants what she may trip over."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.e2e.command import PATIENCE, Done

CAN_SWITCH = os.geteuid() == 0 and shutil.which("setpriv") is not None


@dataclass(frozen=True, slots=True)
class User:
    """A user by number, without a name on this computer; ``home`` is a folder of theirs."""

    uid: int
    home: Path

    def command(self, *words: object, groups: str = "") -> list[str]:
        """The words of a command that this user runs."""
        member = ["--groups", groups] if groups else ["--clear-groups"]
        return ["setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), *member, *map(str, words)]

    def run(self, *words: object, groups: str = "", check: bool = True) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words, groups=groups),
            cwd=self.home,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def environment(self) -> dict[str, str]:
        """The variables of a command of this user."""
        places = {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state")}
        return {**os.environ, **places, "PYTHONPATH": os.pathsep.join(sys.path)}

    def quarry(self, *words: object, groups: str = "") -> Done:
        """Run a quarry command to its end."""
        return self.run(*quarry_command(self.uid), *words, groups=groups)

    def shell(self, text: str) -> Done:
        """Run a line of the shell, which must succeed."""
        done = self.run("sh", "-c", text)
        assert done.code == 0, done.err
        return done


@cache
def quarry_command(uid: int) -> tuple[str, ...]:
    """Return a quarry command that this user can run; empty if the interpreter is in a closed folder.

    The interpreter of the tests may be root's own; then the system's of the same version is used.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    probe = "import subprocess, sys, dicom_quarry, pydantic_core; subprocess.run([sys.executable, '-V'])"
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin") or ""):
        if python and User(uid, Path("/")).run(python, "-c", probe, check=False).code == 0:
            return python, "-P", "-m", "dicom_quarry"
    return ()
