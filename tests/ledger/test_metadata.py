"""Facts about a job that several processes write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg

from dicom_quarry.ledger.ledger import Ledger
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

_WAITING = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"


def test_two_processes_write_a_new_fact_at_once(postgres: PostgresServer) -> None:
    location = postgres.location()
    ledger = Ledger(location)
    with ThreadPoolExecutor(1) as thread, psycopg.connect(postgres.url, autocommit=True) as watching:
        with psycopg.connect(postgres.url) as first:
            first.execute(f"INSERT INTO {location.schema}.job VALUES ('fact', 'first')")
            second = thread.submit(ledger.set_metadata, fact="second")
            wait_for(
                lambda: watching.execute(_WAITING).fetchone() == (True,), "the wait for the other process"
            )
        second.result()
    assert ledger.metadata()["fact"] == "second"
    ledger.close()
