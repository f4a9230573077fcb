"""A worker in a process of its own, on a ledger that it shares; see test_two_workers.py.

``python -m tests.ledger.worker_process NAME URL SCHEMA ARCHIVE FOLDER GONE``; GONE is the worker, if any,
whose claims it takes over. It prints each study that it has ended, or that was not its own any more.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from dicom_quarry.config.settings import load_settings
from dicom_quarry.errors import ClaimLost
from dicom_quarry.extraction.archive_client import open_clients
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.job_setup import make_job_context
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.study_work import work_on_study
from dicom_quarry.extraction.worker import Worker, open_worker
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.store.incoming import open_incoming
from dicom_quarry.system.worker_identity import is_gone


def work(context: JobContext, worker: Worker) -> None:
    """Work until nothing waits."""
    claims = context.ledger.claims
    resolver = Resolver(context.queries, worker.clients, context.ledger)
    guard = InternalErrorGuard("studies", print)
    while True:
        tasks = claims.take_tasks(time.time(), 1)
        for task in tasks:
            ended = work_on_study(task, context, worker, guard)
            print("ended" if ended else "lost", task.study.study_uid, flush=True)
        rows = [] if tasks else claims.take_requests(1)
        for row in rows:
            with suppress(ClaimLost):
                resolver.resolve(row).result()
        if not tasks and not rows:
            return


def main() -> None:
    name, url, schema, archive, folder, *gone = sys.argv[1:]
    place = LocalPlace(Path(folder), Path(folder, name))
    settings = load_settings(None, {"from": archive, "to": folder, "retrieve": "get"})
    queries = make_query_context(settings, JobObserver())
    place.state.mkdir(parents=True)
    place.incoming.mkdir(parents=True, exist_ok=True)
    with (
        closing(Ledger(PostgresLocation(url, schema), name)) as ledger,
        open_incoming(place.incoming, name, is_gone) as incoming,
        open_clients(queries, has_delivered=False) as clients,
        open_worker(clients, ReceiverStats) as worker,
        place.open_audit_log(ledger) as audit_log,
    ):
        ledger.claims.free(lambda other: other in gone)
        print("ready", flush=True)
        sys.stdin.readline()
        work(make_job_context(queries, place, ledger, audit_log, incoming, ("Accession",)), worker)
    print("done", flush=True)


if __name__ == "__main__":
    main()
