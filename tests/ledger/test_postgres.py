"""A ledger on PostgreSQL: a server that goes away, commits in doubt, and what it shows of itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, insert, select

from dicom_quarry.errors import ConfigError, LedgerError
from dicom_quarry.ledger import database as database_module
from dicom_quarry.ledger.backend import backend_of, driver_connection
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.instances import add_instance
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.pipelined import PipelinedConnection
from dicom_quarry.ledger.postgres import PostgresBackend
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.ledger.schema import attempts, metadata
from dicom_quarry.ledger.statements import METADATA
from dicom_quarry.ledger.stored_files import StoredFilesReader
from dicom_quarry.model import OutcomeStatus, Study
from tests.ledger.helpers import attempt, begin, derive, raw_query, request, resolve, stored_row, study
from tests.ledger.test_database import gathered, names, put
from tests.postgres_server import PostgresServer, running_postgres
from tests.reporting.recorded_cohort import record_cohort


@pytest.fixture
def place(postgres: PostgresServer) -> PostgresLocation:
    return postgres.location()


@pytest.fixture
def database(place: PostgresLocation) -> Iterator[Database]:
    opened = Database(place)
    yield opened
    opened.close()


def disconnect(place: PostgresLocation) -> None:
    """End every connection to the server but the one that does so."""
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'quarry'"
    raw_query(place, ended)


def test_records_of_files_from_a_server_that_goes_away_are_an_error_with_the_next_step(
    place: PostgresLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("Connection refused")

    Database(place).close()
    with closing(StoredFilesReader(place)) as reader:
        assert list(reader.files(derive)) == []
        disconnect(place)
        monkeypatch.setattr(PipelinedConnection, "connect", refuse)
        with pytest.raises(LedgerError, match="Connection refused: have it started"):
            list(reader.files(derive))


def test_a_piece_that_fails_is_undone_alone(database: Database) -> None:
    def half(connection: Connection) -> None:
        put("half")(connection)
        raise KeyError("mine")

    done = gathered(database, put("a"), half, put("a"), put("b"))
    done[0].result(10)
    with pytest.raises(KeyError, match="mine"):
        done[1].result(10)
    with pytest.raises(Exception, match="duplicate key"):
        done[2].result(10)
    done[3].result(10)
    assert names(database) == {"a", "b"}


def test_a_lost_connection_costs_nothing(database: Database, place: PostgresLocation) -> None:
    database.write(put("before"))
    assert database.fetch_all(METADATA)
    disconnect(place)
    database.write(put("after"))
    disconnect(place)
    assert {row.name for row in database.fetch_all(METADATA)} == {"before", "after"}
    disconnect(place)
    assert names(database) == {"before", "after"}


def test_a_piece_whose_connection_is_lost_is_run_again(database: Database, place: PostgresLocation) -> None:
    runs: list[int] = []

    def work(connection: Connection) -> str:
        put("once")(connection)
        runs.append(1)
        if len(runs) == 1:
            disconnect(place)
        return "done"

    first, second = gathered(database, put("with it"), work)
    assert (first.result(20) is not None, second.result(20)) == (True, "done")
    assert len(runs) == 2
    assert names(database) == {"once", "with it"}


@pytest.mark.parametrize("reached_the_server", [True, False])
def test_a_commit_in_doubt_is_looked_up_and_not_repeated(
    database: Database, place: PostgresLocation, reached_the_server: bool
) -> None:
    """The answer to a commit is lost, or the commit itself; an attempt must be there once."""
    ledger = Ledger(place)
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    ledger.record_round(1, [attempt()]).result()  # the thread has its connection
    below: Any = driver_connection(ledger.database._connection)
    commit = below.commit

    class Cut:
        def __getattr__(self, name: str) -> Any:
            return getattr(below, name)

        def commit(self) -> None:
            if reached_the_server:
                commit()
            below.close()
            raise psycopg.OperationalError("the connection is lost")

    with pytest.MonkeyPatch.context() as patch:
        cut = Cut()
        patch.setattr(
            database_module,
            "driver_connection",
            lambda c: cut if driver_connection(c) is below else driver_connection(c),
        )
        ledger.record_round(1, [attempt(gained=2)]).result(20)
        ledger.add_folders(1, ["f"]).result(20)  # may be committed twice, and needs no look
    count = select(func.count()).select_from(attempts).where(attempts.c.newly_stored == 2)
    assert ledger.database.read(lambda c: c.scalar(count)) == 1
    assert ledger.folders_of(1) == ["f"]
    ledger.close()


def test_a_schema_without_a_job_is_a_sentence(place: PostgresLocation) -> None:
    assert not has_job(place)
    with pytest.raises(LedgerError, match=r"there is no job in schema job_\w+ of the database"):
        LedgerReader(place)


def test_a_server_that_is_killed_is_waited_for(tmp_path: Path) -> None:
    with running_postgres() as server:
        ledger = Ledger(server.location())
        ledger.set_metadata(before="1")
        server.kill()
        written = threading.Thread(target=lambda: ledger.set_metadata(after="2"))
        written.start()
        server.start()
        written.join(60)
        assert ledger.metadata() == {"before": "1", "after": "2"}
        ledger.close()
        server.kill()
        with pytest.raises(LedgerError, match=r"cannot be opened: .*refused") as failed:
            Ledger(PostgresLocation(server.url.replace("quarry@", "quarry:secret@"), "job_1"))
        assert "secret" not in str(failed.value)
        server.start()


def test_text_that_postgresql_cannot_have_ends_no_job(place: PostgresLocation) -> None:
    ledger = Ledger(place)
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), Study("1.2.1", "4711", "A", "20200101", "CT", "odd\0text", 1, 3))
    (found,) = ledger.waiting_tasks(0.0, 9)
    assert found.study.description == "odd\N{REPLACEMENT CHARACTER}text"
    ledger.close()


def test_large_numbers_fit(place: PostgresLocation) -> None:
    ledger = Ledger(place)
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    large = replace(stored_row("1.2.1", 1), size=5 << 40)
    ledger.database.write(lambda c: add_instance(c, 1, large))
    reader = LedgerReader(place)
    assert [one.size for one in reader.instances(derive)] == [5 << 40]
    reader.close()
    ledger.close()


def test_a_stream_of_many_rows_is_not_held(place: PostgresLocation) -> None:
    ledger = Ledger(place)
    begin(ledger, (request(number, f"A{number}") for number in range(1, 5001)))
    reader = LedgerReader(place)
    rows = reader.rows()
    assert next(rows).row == 1
    begun = raw_query(place, "select count(*) from pg_stat_activity where query like 'FETCH%'")
    assert begun == [(1,)], "the rows are fetched by a cursor of the server"
    assert sum(1 for _ in rows) == 4999
    reader.close()
    ledger.close()


def test_a_suspended_writer_gives_the_lock_back(
    place: PostgresLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped within a transaction; the server's own time-out ends it."""
    Database(place).close()
    monkeypatch.setattr("dicom_quarry.ledger.postgres._MAX_IDLE_IN_TRANSACTION", 200)
    suspended = PostgresBackend(place).connect()
    PostgresBackend(place).begin(suspended)
    suspended.execute("insert into job values ('lost', '')")
    other = Database(place)
    other.write(put("goes on"))
    assert names(other) == {"goes on"}
    other.close()
    with pytest.raises(psycopg.Error, match="idle-in-transaction"):
        suspended.execute("select 1")


@pytest.mark.parametrize("name", ["", "Job", "job-1", "pg_job", "a;drop", 'a"b', "x" * 64])
def test_a_name_that_is_no_schema_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a schema"):
        PostgresLocation("postgresql://localhost/quarry", name)


@pytest.mark.parametrize(
    ("name", "condition"),
    [("queries_by_row", '("row" IS NOT NULL)'), ("tasks_waiting_for_archive", "(state = 'waiting'::text)")],
)
def test_indexes_are_partial(place: PostgresLocation, name: str, condition: str) -> None:
    Database(place).close()
    (found,) = raw_query(place, f"select indexdef from pg_indexes where indexname = '{name}'")[-1]
    assert found.endswith(f"WHERE {condition}")


def test_the_embedded_ledger_needs_no_psycopg(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dicom_quarry.ledger.ledger import Ledger;"
        "Ledger(Path(sys.argv[1])).close();"
        "print([one for one in ('psycopg', 'sqlalchemy.dialects.postgresql') if one in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "l.db")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_extra_the_error_names_it() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from dicom_quarry.ledger.ledger import Ledger\n"
        "from dicom_quarry.ledger.location import PostgresLocation\n"
        "Ledger(PostgresLocation('postgresql://localhost/quarry', 'job_1'))"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: a ledger on PostgreSQL needs psycopg: install it with" in failed.stderr


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> tuple[Path, PostgresLocation]:
    """The same job of 400 rows on both databases."""
    out, place = tmp_path_factory.mktemp("both") / "out", postgres.location()
    record_cohort(out, 400, unusable=3)
    path = out / ".quarry/ledger.db"
    Database(place).close()
    source, target = backend_of(path).open_engine(read_only=True), backend_of(place).open_engine()
    with source.connect() as old, target.begin() as new:
        for table in metadata.sorted_tables:
            if rows := [dict(row._mapping) for row in old.execute(select(table))]:
                new.execute(insert(table), rows)
    source.dispose()
    target.dispose()
    return path, place


def rounded(value: object) -> object:
    """Sums of floats differ in their last digits, as the order of the rows does."""
    if is_dataclass(value):
        return {one.name: rounded(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in sorted(value.items())}
    return round(value, 3) if isinstance(value, float) else value


READS: dict[str, Callable[[StoredFilesReader], object]] = {
    "counts": lambda reader: replace(reader.counts(), study_groups=frozenset(reader.counts().study_groups)),  # type: ignore[arg-type]
    "activity": lambda reader: rounded(reader.activity()),
    "most at once": lambda reader: reader.most_retrievals_at_once(),
    "minutes": lambda reader: sorted(reader.requests_by_minute()),
    "composition": lambda reader: reader.composition(),
    "rows": lambda reader: list(reader.rows()),
    "a row": lambda reader: list(reader.rows(only=17)),
    "a page": lambda reader: reader.row_page(None, 9, before=200),
    "incomplete rows": lambda reader: reader.row_page(OutcomeStatus.PARTIAL, 50),
    "studies": lambda reader: list(reader.studies()),
    "missing": lambda reader: list(reader.missing()),
    "retrieval totals": lambda reader: reader.retrieval_totals(),
    "totals": lambda reader: reader.totals(),
    "files": lambda reader: list(reader.files(derive)),
    "wanted folders": lambda reader: reader.wanted_folders(),
    "complete tasks": lambda reader: list(reader.complete_tasks()),
}


@pytest.mark.parametrize("name", READS)
def test_what_is_read_is_the_same_on_both(both: tuple[Path, PostgresLocation], name: str) -> None:
    found = []
    for location in both:
        reader = StoredFilesReader(location)
        found.append(READS[name](reader))
        reader.close()
    sqlite, postgresql = found
    assert postgresql == pytest.approx(sqlite) if name == "retrieval totals" else postgresql == sqlite
    assert postgresql or name in ("missing", "files")


def test_histories_are_the_same_on_both(both: tuple[Path, PostgresLocation]) -> None:
    readers = [HistoryReader(location, "mismatch") for location in both]
    for row in range(1, 401, 7):
        sqlite, postgresql = (
            (reader.row_history(row), list(reader.study_histories_of_rows([row]))) for reader in readers
        )
        assert sqlite == postgresql
    assert readers[0].rows_with("PatientID", "4712") == readers[1].rows_with("PatientID", "4712") != []
    for reader in readers:
        reader.close()
