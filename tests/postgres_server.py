"""A PostgreSQL server of the test's own: Debian's binaries, on a free port of loopback, as its own user."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg

from dicom_quarry.ledger.location import PostgresLocation

#: Nothing of a test must survive a power cut, and a test's rows are few.
_SETTINGS = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_connections": "120",
    "log_min_messages": "fatal",
    "autovacuum": "off",
}


def binaries() -> Path:
    """The folder of the newest PostgreSQL that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: float(one.parts[-3]))
    assert found, "PostgreSQL is missing: make test installs it"
    return found[-1].parent


class PostgresServer:
    """A server that can be killed and started again; ``url`` names its database.

    With an ``address`` it is at that one, for the hosts of its network, besides loopback. ``settings`` are
    those of postgresql.conf.
    """

    def __init__(self, address: str = "127.0.0.1", settings: Mapping[str, str] = _SETTINGS) -> None:
        self._settings = {**settings, "listen_addresses": ",".join({"127.0.0.1", address})}
        self._folder = Path(tempfile.mkdtemp(prefix="quarry-pg-", dir="/tmp"))
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "--no-sync", "--auth=trust", "--username=quarry", "--encoding=UTF8", "--locale=C")
        if address != "127.0.0.1":
            with (self._folder / "data" / "pg_hba.conf").open("a") as file:
                file.write("host all all samenet trust\n")
        self.start()
        self.url = f"postgresql://quarry@{address}:{self.port}/postgres"

    def start(self) -> None:
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = self._as_user("postgres", "-p", str(self.port), "-k", str(self._folder), *settings)
        deadline = time.monotonic() + 60
        self._process = self._launch(command)
        while not self._answers():
            assert time.monotonic() < deadline, "PostgreSQL has not started"
            if self._process.poll() is not None:  # processes of the killed server may still be ending
                self._process = self._launch(command)
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        return self._process.pid

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        null = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=null, stderr=null, cwd=self._folder)

    def kill(self) -> None:
        """kill -9 of the server; its other processes end with it."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def location(self) -> PostgresLocation:
        """A schema that no other test has."""
        return PostgresLocation(self.url, f"job_{secrets.token_hex(6)}")

    def demand_password(self, role: str) -> None:
        """Let a role in with its password alone; the others need none."""
        access = self._folder / "data" / "pg_hba.conf"
        access.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")

    def _answers(self) -> bool:
        try:
            psycopg.connect(f"host=127.0.0.1 port={self.port} user=quarry dbname=postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        subprocess.run(self._as_user(*command), check=True, stdout=subprocess.DEVNULL, cwd=self._folder)

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        """PostgreSQL does not run as root."""
        command = [str(binaries() / program), "-D", str(self._folder / "data"), *arguments]
        if os.geteuid() != 0:
            return command
        user = pwd.getpwnam(self._user)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]


@contextlib.contextmanager
def running_postgres(
    address: str = "127.0.0.1", settings: Mapping[str, str] = _SETTINGS
) -> Iterator[PostgresServer]:
    server = PostgresServer(address, settings)
    try:
        yield server
    finally:
        server.stop()
