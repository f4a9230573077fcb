"""Check the systemd units of the pages: syntax, and the exit codes after which systemd restarts."""

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
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "quarry-ct.service"
    here = unit.replace("/opt/quarry/bin/quarry", str(QUARRY)).replace("User=anna", "User=root")
    path.write_text(here.replace("/data/project", str(tmp_path)))
    scope = "--system" if "User=" in unit else "--user"
    command = ["systemd-analyze", "verify", scope, "--man=no", str(path)]
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert done.returncode == 0 and not complaints, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: "system" if "User=" in unit else "user")
def test_exit_codes_without_a_restart(unit: str) -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert settings["Restart"] == "on-failure"
    # 3, could not start, is tried again; after 4 a person has to act, or has acted.
    assert settings["RestartPreventExitStatus"].split() == ["0", "1", "2", "4"]
    # A defect that ends a job each time must not query the archive for ever.
    assert settings["StartLimitBurst"] == "3" and settings["StartLimitIntervalSec"] == "1d"
