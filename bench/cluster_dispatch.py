"""How many studies a second the engine, the window and the claims give out, without a retrieval.

``python -m bench.cluster_dispatch URL NAME JOB`` is a worker of it, which claims each study, and ends it at
once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import psutil
import psycopg
from tests.postgres_server import PostgresServer

from bench.cluster_waiting import ARCHIVE, job_of
from bench.results import Table, machine
from dicom_quarry.cluster.engine import study_queue
from dicom_quarry.cluster.worker import WorkerLoop
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.versions import read_versions
from dicom_quarry.jobs.cluster.workers import Registration
from dicom_quarry.ledger.ledger import Ledger, TaskResult
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.system.worker_identity import new_worker_identity

_STUDIES = 4000
_THREADS = 4


class Endings:
    """The work of a worker: each study that it claims has ended."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def open_queues(self) -> Mapping[str, int]:
        """Return the queue of the archive."""
        return {study_queue(ARCHIVE): _THREADS}

    def describe_wait(self) -> str:
        """Return nothing."""
        return ""

    def describe_archives(self) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def require_receiver(self) -> None:
        """Need none."""

    def attend(self, _: psycopg.Connection) -> None:
        """Do nothing."""

    def rest(self) -> bool:
        """Return True."""
        return True

    def go_on(self) -> None:
        """Do nothing."""

    def query_rows(self, _: int) -> None:
        """Do nothing."""

    def run_command(self, _job: int, _name: str) -> None:
        """Have none."""

    def compare_files(self, _: int) -> None:
        """Have none."""

    def fetch_study(self, _: int, archive: str) -> None:
        """Claim a study, and end it."""
        for task in self._ledger.claims.take_tasks(time.time(), 1, archive):
            end = TaskResult("none_listed", {}, 0, 0, 0, "", None, ())
            self._ledger.conclude_task(task.task_id, end, task.claim).result()


def work(url: str, name: str, job: int) -> None:
    """Be a worker until the standard input is closed."""
    cluster, identity, stopping = Cluster(url), new_worker_identity(), threading.Event()
    with cluster.connected() as connection:
        revision = read_versions(connection).revision
        registration = Registration(name, identity, f"{name}:11112", "/nowhere", revision=revision)
        registration.enter(connection)
    with closing(Ledger(PostgresLocation(url, f"job_{job}"), identity, claims_ahead=0)) as ledger:
        jobs = Endings(ledger)
        loop = WorkerLoop(
            cluster.open_connection, cluster.conninfo(), registration, jobs.open_queues(), jobs, stopping
        )
        threading.Thread(target=_stop_at_end_of_input, args=(stopping,), daemon=True).start()
        loop.run()


def _stop_at_end_of_input(stopping: threading.Event) -> None:
    sys.stdin.read()
    stopping.set()


def processor_time(pids: Sequence[int], *, children: bool = True) -> float:
    """Return the seconds of processor time of processes, and of those that they have started."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        times = process.cpu_times()
        total += times.user + times.system
        if children:
            total += times.children_user + times.children_system
            total += sum(one.user + one.system for one in map(_times, process.children(recursive=True)))
    return total


def _times(process: psutil.Process) -> Any:
    return process.cpu_times()


def measure(server: PostgresServer, workers: int) -> tuple[float, float, float]:
    """Return studies a second, and milliseconds of a processor a study: of the server, of the workers."""
    with ExitStack() as stack:
        _, job = stack.enter_context(job_of(server.url, f"dispatch-{workers}", {"waiting": _STUDIES}))
        connection = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        command = [sys.executable, "-m", "bench.cluster_dispatch", server.url]
        children = [
            stack.enter_context(
                subprocess.Popen([*command, f"W{number}", str(job)], stdin=subprocess.PIPE, text=True)
            )
            for number in range(workers)
        ]
        stack.callback(partial(_end, children))
        pids = [child.pid for child in children]

        def wait_until(count: int) -> int:
            ended = 0
            while ended < count:
                time.sleep(0.25)  # the question itself takes time of the server
                (ended,) = connection.execute(
                    f"SELECT count(*) FROM job_{job}.tasks WHERE state = 'concluded'"
                ).fetchone() or (0,)
            return ended

        first = wait_until(_STUDIES // 10)
        began, server_began, workers_began = (
            time.monotonic(),
            processor_time([server.pid]),
            processor_time(pids),
        )
        done = wait_until(_STUDIES * 9 // 10) - first
        return (
            done / (time.monotonic() - began),
            (processor_time([server.pid]) - server_began) / done * 1e3,
            (processor_time(pids) - workers_began) / done * 1e3,
        )


def _end(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.close()


def table(server: PostgresServer, most: int) -> Table:
    """Return the rates of one worker to ``most``."""
    rows = []
    for workers in range(1, most + 1):
        rate, server_time, worker_time = measure(server, workers)
        rows.append([f"{workers}", f"{rate:,.0f}", f"{server_time:.1f}", f"{worker_time:.1f}"])
    return Table(
        "cluster-dispatch",
        "Studies that are given out and ended, without a retrieval",
        ["workers", "studies/s", "PostgreSQL, ms", "workers, ms"],
        rows,
        (f"{_THREADS} at once on each worker; processor time of a study. All on one machine.",),
        machine(),
    )


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
