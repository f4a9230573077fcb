"""Tables that a member of a job's role makes later: they are the role's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest

from dicom_quarry.jobs.cluster.tables import create_tables
from dicom_quarry.ledger.database import upgrade_ledger
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from tests.postgres_server import PostgresServer


@pytest.fixture
def owned(postgres: PostgresServer) -> Iterator[PostgresLocation]:
    """A record of another role."""
    location = postgres.location()
    with closing(Ledger(location)), psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE owner_of_job")
        connection.execute(f"ALTER SCHEMA {location.schema} OWNER TO owner_of_job")
        for table in owners(postgres, location):
            connection.execute(f"ALTER TABLE {location.schema}.{table} OWNER TO owner_of_job")
    yield location
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {location.schema} CASCADE; DROP ROLE owner_of_job")


def owners(postgres: PostgresServer, location: PostgresLocation) -> dict[str, str]:
    with psycopg.connect(postgres.url) as connection:
        statement = "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = %s"
        return dict(connection.execute(statement, (location.schema,)).fetchall())


def make_older(postgres: PostgresServer, location: PostgresLocation) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            f"""
            SET search_path = {location.schema};
            DROP TABLE claims;
            DROP INDEX tasks_waiting, tasks_waiting_for_archive;
            CREATE INDEX tasks_by_state ON tasks (state, not_before, id);
            UPDATE schema_version SET version = 1
            """
        )


def upgrade(location: PostgresLocation) -> None:
    upgrade_ledger(location)


def add_tables(location: PostgresLocation) -> None:
    with closing(Ledger(location)) as ledger:
        ledger.database.write(create_tables)


@pytest.mark.parametrize(("make", "table"), [(upgrade, "claims"), (add_tables, "exclusions")])
def test_they_belong_to_the_role_of_the_job(
    postgres: PostgresServer, owned: PostgresLocation, make: Callable[[PostgresLocation], None], table: str
) -> None:
    if make is upgrade:
        make_older(postgres, owned)
    assert table not in owners(postgres, owned)
    make(owned)
    assert owners(postgres, owned)[table] == "owner_of_job"
