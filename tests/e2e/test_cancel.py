"""Two SIGTERM, or ``quarry stop --now``, end a job within seconds, whatever it waits for."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import MoveOperation
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.wire import dimse
from tests.e2e.command import Running, quarry, until
from tests.peers.process import free_port, wait_for
from tests.peers.smtp import MailServer
from tests.receiver.helpers import CT, RawPeer
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.dripping_web import DrippingWeb
from tests.scripted.faults import IgnoreCancel, Silence, SilentFind

STUDIES = generate_studies(2, seed=9, images=2)

#: Seconds from the second signal to the end: about five are meant, and this machine may be slow.
MARGIN = 20.0

NEVER = 600.0


@dataclass
class Job:
    """A job that waits for something: its command, and the condition that it waits."""

    command: tuple[object, ...]
    waits: Callable[[], bool]
    code: int = 4


class AnnouncedStore(Fault):
    """A C-STORE is announced, and neither its dataset nor an answer to the C-MOVE comes."""

    hears_cancel = False

    def __init__(self) -> None:
        super().__init__()
        self.announced = threading.Event()

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        with RawPeer(archive.destinations["QUARRY"][1]) as peer:
            peer.associate(calling=archive.title)
            peer.send(peer.message(3, dimse.c_store_rq(1, CT, "1.2.3")))
            self.announced.set()
            archive.stopped.wait()
        return True


def command(work: Path, source: str, *more: object, config: str = "") -> tuple[object, ...]:
    cohort, settings = work / "cohort.csv", work / "quarry.toml"
    cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")
    settings.write_text(f"keep-free = 0\n{config}[archive.main]\n{source}\n")
    to = ("extract", cohort, "--from", "main", "--to", work / "out", "--config", settings)
    return (*to, *more)


@contextmanager
def dimse_archive(
    work: Path, *faults: Fault, config: str = ""
) -> Iterator[tuple[ScriptedArchive, tuple[object, ...]]]:
    port = free_port()
    with ScriptedArchive(STUDIES, faults, destinations={"QUARRY": ("127.0.0.1", port)}) as archive:
        source = f'address = "{archive.title}@127.0.0.1:{archive.port}"\nretrieve = "move"'
        yield archive, command(work, source, "--as", f"QUARRY@127.0.0.1:{port}", config=config)


@contextmanager
def query(work: Path) -> Iterator[Job]:
    with dimse_archive(work, SilentFind()) as (archive, arguments):
        yield Job(arguments, lambda: bool(archive.requests("find")))


@contextmanager
def move(work: Path) -> Iterator[Job]:
    with dimse_archive(work, Silence(0, NEVER), IgnoreCancel()) as (archive, arguments):
        yield Job(arguments, lambda: bool(archive.requests("move")))


@contextmanager
def announced_store(work: Path) -> Iterator[Job]:
    fault = AnnouncedStore()
    with dimse_archive(work, fault) as (_, arguments):
        yield Job(arguments, fault.announced.is_set)


@contextmanager
def association(work: Path) -> Iterator[Job]:
    """The archive accepts the connection, and does not answer the association request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken: list[socket.socket] = []
        threading.Thread(target=lambda: taken.append(server.accept()[0]), daemon=True).start()
        address = f'address = "PACS@127.0.0.1:{server.getsockname()[1]}"'
        yield Job(command(work, address, "--as", f"QUARRY:{free_port()}"), lambda: bool(taken))


@contextmanager
def token_command(work: Path) -> Iterator[Job]:
    ran = work / "ran"
    script = work / "token"
    script.write_text(f"#!/bin/sh\necho $$ > {ran}.new\nmv {ran}.new {ran}\nexec sleep 300\n")
    script.chmod(0o700)
    with DrippingWeb("silence", 1.0) as web:
        source = f'dicomweb = "{web.base_url}"\nhttp = {{ token-command = "{script}" }}'
        yield Job(command(work, source), ran.exists)
    # Nothing that the job started is left.
    wait_for(lambda: not is_running(int(ran.read_text())), "the end of the command")


@contextmanager
def on_complete(work: Path) -> Iterator[Job]:
    script, ran = work / "complete", work / "ran"
    script.write_text(f"#!/bin/sh\ntrap '' TERM\ntouch {ran}\nsleep 50\nsleep 50\n")
    script.chmod(0o700)
    with dimse_archive(work, config=f'on-complete = "{script}"\n') as (_, arguments):
        yield Job(arguments, ran.exists)


@contextmanager
def mail(work: Path) -> Iterator[Job]:
    """The job is over, and its message waits for a mail server: one signal is enough."""
    with MailServer(silent=True) as server:
        notify = f'[notify]\nsmtp = "127.0.0.1:{server.port}"\nmail-to = ["a@example.org"]\nlimit = "10m"\n'
        with dimse_archive(work, config=notify) as (_, arguments):
            yield Job(arguments, lambda: server.calls > 0, code=0)


@contextmanager
def locked_ledger(work: Path) -> Iterator[Job]:
    """Another process has the ledger's write lock, as if it had been suspended."""
    ledger = work / "out" / ".quarry" / "ledger.db"
    with ExitStack() as stack:
        held = threading.Event()

        class Lock(Fault):
            def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
                if not held.is_set():
                    connection = sqlite3.connect(ledger, isolation_level=None, check_same_thread=False)
                    stack.callback(connection.close)
                    connection.execute("BEGIN IMMEDIATE")
                    held.set()
                return False

        _, arguments = stack.enter_context(dimse_archive(work, Lock()))
        yield Job(arguments, held.is_set)


def web(drip: str) -> Callable[[Path], AbstractContextManager[Job]]:
    @contextmanager
    def waiting(work: Path) -> Iterator[Job]:
        with DrippingWeb(drip, 0.05) as server:
            yield Job(command(work, f'dicomweb = "{server.base_url}"'), lambda: server.calls > 0)

    return waiting


WAITS: dict[str, Callable[[Path], AbstractContextManager[Job]]] = {
    "a query": query,
    "a retrieval": move,
    "an instance that was announced": announced_store,
    "an association": association,
    "token-command": token_command,
    "on-complete": on_complete,
    "a mail server": mail,
    "the ledger's lock": locked_ledger,
    **{f"http, {drip}": web(drip) for drip in ("silence", "a header", "trailers")},
}


def is_running(pid: int) -> bool:
    try:
        return "(sleep) Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def watch_end(running: Running, code: int) -> None:
    began = time.monotonic()
    assert running.wait(MARGIN) == code, running.output
    assert time.monotonic() - began < MARGIN


@pytest.mark.parametrize("wait", WAITS)
def test_two_signals_end_a_job_whatever_it_waits_for(wait: str, work: Path) -> None:
    with WAITS[wait](work) as job, Running(work / "log", *job.command) as running:
        until(running, f"waiting for {wait}", job.waits)
        running.terminate()
        time.sleep(0.3)  # two signals at once are delivered as one
        running.terminate()
        watch_end(running, job.code)


def test_stop_now_does_the_same(work: Path) -> None:
    with announced_store(work) as job, Running(work / "log", *job.command) as running:
        until(running, "the announcement", job.waits)
        assert quarry("stop", "--now", work / "out").code == 0
        watch_end(running, 4)


def test_the_receiver_alone_ends_too(work: Path) -> None:
    port = free_port()
    with Running(
        work / "log", "receive", "-b", f"QUARRY@127.0.0.1:{port}", "--directory", work / "in"
    ) as running:
        until(running, "the receiver", lambda: "ready" in running.output)
        with RawPeer(port) as peer:
            peer.associate()
            peer.send(peer.message(3, dimse.c_store_rq(1, CT, "1.2.3")))
            running.terminate()
            time.sleep(0.3)
            running.terminate()
            watch_end(running, 0)
