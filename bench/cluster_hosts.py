"""Jobs of one to four workers, each on a host of its own: network namespaces on one bridge (as root)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from tests.cluster.site import Site
from tests.namespaces import Network
from tests.postgres_server import PostgresServer

from bench.cluster_dispatch import processor_time
from bench.results import Table, machine
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies

#: The line of each host, and the studies of each worker that fill it for about half a minute.
MEGABITS = 16
_LARGE, _IMAGES = 20, 5

#: Small studies, whose lines are not the limit.
_SMALL = 600


@dataclass(frozen=True, slots=True)
class Run:
    """A job: seconds from the first move to the end of the last one, and processor time in seconds.

    ``record`` is the size of its record in the database, in bytes.
    """

    studies: int
    instances: int
    size: int
    seconds: float
    server: float
    workers: float
    archive: float
    record: int


#: The size of the tables and indexes of the newest job, beyond the page that each has when it is empty.
_RECORD = """
SELECT sum(greatest(pg_total_relation_size(oid) - 8192, 0))::bigint FROM pg_class
WHERE relkind = 'r' AND relnamespace = to_regnamespace('job_' || (SELECT max(number) FROM quarry.jobs))
"""


def run(
    server: PostgresServer, network: Network, studies: list[DemoStudy], workers: int, megabits: int = 0
) -> Run:
    """Run a job of these studies on so many workers; ``megabits`` is the rate of their lines, 0 for any."""
    with tempfile.TemporaryDirectory(prefix="quarry-hosts-") as folder:
        work, before = Path(folder), Path.cwd()
        os.chdir(work)
        try:
            with Site(work, server.url, studies, settings='retrieve = "move"', network=network) as site:
                return _run(site, server, studies, workers, megabits)
        finally:
            os.chdir(before)
            network.remove_hosts()


def _run(site: Site, server: PostgresServer, studies: list[DemoStudy], workers: int, megabits: int) -> Run:
    titles = [f"W{number}" for number in range(1, workers + 1)]
    started = [site.start_worker(title, "--parallel", 2) for title in titles]
    for title in titles:
        if megabits and site.network and (host := site.host_of(title)):
            site.network.limit(host, megabits)
    pids = [one.pid for one in started]
    before = [
        processor_time([server.pid]),
        processor_time(pids),
        processor_time([os.getpid()], children=False),
    ]
    name = f"bench-{os.urandom(4).hex()}"
    with site.start(name, studies) as job:
        assert job.wait(1800) == 0, job.output
    after = [
        processor_time([server.pid]),
        processor_time(pids),
        processor_time([os.getpid()], children=False),
    ]
    with psycopg.connect(server.url) as connection:
        (record,) = connection.execute(_RECORD).fetchone() or (0,)
    files = site.files(name)
    began = site.archive.requests("move")[0].time
    spent = [end - start for start, end in zip(before, after, strict=True)]
    seconds, (of_server, of_workers, of_archive) = site.archive.ended_at - began, spent
    size = sum(files.values())
    return Run(len(studies), len(files), size, seconds, of_server, of_workers, of_archive, record)


def line_table(server: PostgresServer, network: Network, most: int) -> Table:
    """Return the throughput of one worker to ``most``, whose lines are the limit."""
    rows: list[Sequence[str]] = []
    first = 0.0
    for workers in range(1, most + 1):
        found = run(
            server, network, generate_studies(_LARGE * workers, 5, "ct", images=_IMAGES), workers, MEGABITS
        )
        rate = found.size / found.seconds / 1e6
        first = first or rate
        share = rate * 8 / (MEGABITS * workers)
        shares = [f"{share:.0%}", f"{rate / first / workers:.0%}"]
        rows.append([f"{workers}", f"{found.studies}", f"{found.seconds:.0f}", f"{rate:.2f}", *shares])
    return Table(
        "cluster-lines",
        f"Workers on hosts with a line of {MEGABITS} Mbit/s each",
        ["workers", "studies", "seconds", "MB/s", "of the lines", "of linear"],
        rows,
        (
            f"Studies of {_IMAGES} CT images of 0.5 MB by C-MOVE from the demo archive, two at once on each "
            "worker; from the first request to the end of the last one.",
        ),
        machine(),
    )


def small_table(server: PostgresServer, network: Network, most: int) -> Table:
    """Return rates and processor time of small studies, for as many workers."""
    rows: list[Sequence[str]] = []
    for workers in range(1, most + 1):
        found = run(server, network, generate_studies(_SMALL, 6, images=_IMAGES), workers)
        each = 1e3 / found.studies
        times = [f"{one * each:.1f}" for one in (found.server, found.workers, found.archive)]
        rate, record = found.studies / found.seconds, found.record / found.studies
        rows.append([f"{workers}", f"{rate:.0f}", *times, f"{record / 1e3:.1f}"])
    return Table(
        "cluster-small",
        f"{_SMALL} studies of {_IMAGES} images of 9 kB",
        ["workers", "studies/s", "PostgreSQL, ms", "workers, ms", "archive, ms", "record, kB"],
        rows,
        (
            "The whole work on a study, from its row to its proof, on one machine: processor time of a "
            "study, and its part of the record in the database. The demo archive is written in Python.",
        ),
        machine(),
    )
