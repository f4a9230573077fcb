"""A command of the user's: what it is told, what it says, and how it is ended."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from dicom_quarry.errors import ConfigError
from dicom_quarry.system import subprocess_runner

PYTHON = sys.executable


def test_it_is_told_and_heard_and_no_shell_reads_its_words(tmp_path: Path) -> None:
    program = "import os, sys; print(len(sys.stdin.read()), sys.argv[1], os.environ['MINE'])"
    words = [PYTHON, "-c", program, "$(touch made); *"]
    ended = subprocess_runner.run_command(words, "x" * 500_000, timeout=60, environment={"MINE": "yes"})
    assert ended == subprocess_runner.CommandResult("", "500000 $(touch made); * yes")


def test_it_gets_the_variables_that_are_passed_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PACS_PASSWORD", "LC_TIME", "AWS_PROFILE"):
        monkeypatch.setenv(name, "x")
    ended = subprocess_runner.run_command(
        [PYTHON, "-c", "import os; print(*sorted(os.environ))"],
        "",
        timeout=60,
        environment={"MINE": "yes"},
        passed=(*subprocess_runner.ORDINARY_VARIABLES, "AWS_*"),
    )
    names = ended.output.split()
    assert {"PATH", "LC_TIME", "AWS_PROFILE", "MINE"} <= set(names)
    assert "PACS_PASSWORD" not in names


def test_the_end_of_what_it_says_is_kept(tmp_path: Path) -> None:
    ended = subprocess_runner.run_command(
        [PYTHON, "-c", "for n in range(99999): print(n)\nexit(3)"], "", timeout=60
    )
    assert ended.problem == "it ended with exit code 3"
    assert ended.output.endswith("\n99997\n99998")
    assert len(ended.output) <= 64_000


def test_it_need_not_read_what_it_is_told() -> None:
    assert subprocess_runner.run_command(["true"], "x" * 500_000, timeout=60).problem == ""


def test_what_it_leaves_behind_is_not_waited_for() -> None:
    assert subprocess_runner.run_command(
        ["sh", "-c", "sleep 3 & echo said"], "", timeout=60
    ) == subprocess_runner.CommandResult("", "said")


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_it_is_ended_when_it_takes_too_long(trap: str) -> None:
    ended = subprocess_runner.run_command(["sh", "-c", f"{trap}sleep 600; sleep 600"], "", timeout=0.2)
    assert ended.problem == "it took longer than 0.2 s and was stopped"


def test_it_is_ended_when_it_is_cancelled() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    assert (
        subprocess_runner.run_command(["sleep", "600"], "", timeout=600, is_cancelled=stop.is_set).problem
        == "it was cancelled"
    )


def test_how_else_it_may_end() -> None:
    assert (
        subprocess_runner.run_command(["sh", "-c", "kill -9 $$"], "", timeout=60).problem
        == "it was killed by signal 9"
    )
    assert (
        "could not be started" in subprocess_runner.run_command(["/no/such/program"], "", timeout=60).problem
    )


@pytest.mark.parametrize("text", ["", "  ", "a 'b"])
def test_what_is_no_command(text: str) -> None:
    with pytest.raises(ValueError, match="it "):
        subprocess_runner.parse_command(text)


def test_a_program_that_is_not_here() -> None:
    assert subprocess_runner.parse_command("sh -c 'a b'") == ("sh", "-c", "a b")
    subprocess_runner.check_program("on-complete", ("sh",))
    with pytest.raises(ConfigError, match="on-complete: there is no program 'no-such'"):
        subprocess_runner.check_program("on-complete", ("no-such",))
