"""systemd takes the units of the pages, and restarts what a restart can help."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, parts
from tests.e2e.command import QUARRY

UNITS = [part.text for page in PAGES for part in parts(page) if "[Service]" in part.text]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: "system" if "User=" in unit else "user")
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "quarry-ct.service"
    here = unit.replace("/opt/quarry/bin/quarry", str(QUARRY)).replace("User=anna", "User=root")
    path.write_text(here.replace("/data/project", str(tmp_path)))
    whose = "--system" if "User=" in unit else "--user"
    command = ["systemd-analyze", "verify", whose, "--man=no", str(path)]
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    said = [line for line in done.stderr.splitlines() if path.name in line]
    assert done.returncode == 0 and not said, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: "system" if "User=" in unit else "user")
def test_what_a_restart_cannot_help_is_left_alone(unit: str) -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert settings["Restart"] == "on-failure"
    # 3, could not start, is tried again; after 4 a person has to act, or has acted.
    assert settings["RestartPreventExitStatus"].split() == ["0", "1", "2", "4"]
