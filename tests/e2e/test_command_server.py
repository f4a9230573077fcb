"""A command that the server forks for a shell behaves as one that the shell started."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import termios
from pathlib import Path
from typing import IO

from tests.e2e.command import PATIENCE, command_server, path_for_shell
from tests.peers.process import wait_for


def shell(line: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PATH": path_for_shell(), "QUARRY_CONFIG": "no.toml"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["sh", "-c", line], cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def test_streams_folder_and_exit_code(work: Path) -> None:
    with shell("mkdir deep; cd deep; quarry --version | tee here; quarry status .", work) as command:
        out, err = command.communicate(timeout=PATIENCE)
    assert command.returncode == 2 and "holds no job" in err
    assert out == (work / "deep" / "here").read_text() and out.startswith("quarry ")
    assert command_server().run_code("raise SystemExit(len(input()))", PATIENCE)[0] == 1


def test_it_ends_with_a_signal_and_with_its_client(work: Path) -> None:
    for number in (signal.SIGHUP, signal.SIGKILL):
        with shell("exec quarry plan - --from PACS@127.0.0.1:9", work) as command:
            assert command.stdin and command.stdout and command.stderr
            command.stdin.write("Accession\n")
            command.stdin.flush()
            _wait_until_read(command.stdin)
            command.send_signal(number)
            # The command has the pipes, too: they are at their end only once it has ended.
            assert select.select([command.stdout], [], [], PATIENCE)[0], "it has ended"
            assert command.stdout.read() == command.stderr.read() == ""
            assert command.wait(PATIENCE) == -number


def _wait_until_read(pipe: IO[str]) -> None:
    def is_read() -> bool:
        return fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) == bytes(4)

    wait_for(is_read, "the command reads", PATIENCE)
