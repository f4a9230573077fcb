"""Processes and users: the owner of a port, the user of a process, the names of users."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from dicom_quarry.system import processes


def test_the_process_that_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = processes.find_port_owner(port)
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert processes.find_port_owner(client.getsockname()[1]) == "", "it does not listen"
    assert found == f"{psutil.Process().name()} (process {os.getpid()})"
    assert processes.find_port_owner(port) == ""


def test_where_the_system_does_not_show_its_processes_the_owner_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert processes.find_port_owner(1) == ""


def test_a_process_runs_as_its_user_until_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert processes.process_runs_as(child.pid, os.geteuid())
        assert not processes.process_runs_as(child.pid, os.geteuid() + 1)
    assert not processes.process_runs_as(child.pid, os.geteuid())
    assert not processes.process_runs_as(2**40, os.geteuid()) and not processes.process_runs_as(-1, 0)


def test_users_have_names_or_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "mallory")
    assert processes.user_name(0) == "root"
    assert processes.user_name() == processes.user_name(os.getuid()) != "mallory"
    assert processes.user_name(3_999_999_999) == "3999999999"
