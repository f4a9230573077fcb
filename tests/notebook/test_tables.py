"""Tables in five libraries: zeros, nulls, UTC times, dates and integers survive, batches are small."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

import dicom_quarry
from dicom_quarry.errors import LedgerError, StartError
from dicom_quarry.reporting.arrow_table import BATCH_ROWS, ArrowTable, Column, ColumnType
from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import LoggingArchive, Office, Pause
from tests.lazy_module import import_lazily
from tests.notebook.conftest import MARK, Site

# Every worker collects this file, and one alone needs these libraries, which take seconds to load.
duckdb, narwhals, pandas, polars, pyarrow = map(
    import_lazily, ("duckdb", "narwhals", "pandas", "polars", "pyarrow")
)

Rows = list[dict[str, Any]]


def by_pandas(table: ArrowTable) -> Rows:
    frame = pandas.DataFrame.from_arrow(table)
    return [
        {name: None if pandas.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def by_duckdb(table: ArrowTable) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        connection.register("given", table)
        # As UTC, without the pytz that a time with a zone needs.
        times = [
            f'epoch_us("{one.name}")' if one.type is ColumnType.TIME else f'"{one.name}"' for one in COLUMNS
        ]
        names = times if table.column_names == tuple(one.name for one in COLUMNS) else ["*"]
        found = connection.execute(f"SELECT {', '.join(names)} FROM given")
        rows = found.fetchall()
        if names == ["*"]:
            return [dict(zip([one[0] for one in found.description], row, strict=True)) for row in rows]
    return [
        {
            one.name: datetime.fromtimestamp(value / 1e6, UTC)
            if one.type is ColumnType.TIME and value is not None
            else value
            for one, value in zip(COLUMNS, row, strict=True)
        }
        for row in rows
    ]


LIBRARIES: dict[str, Callable[[Any], Rows]] = {
    "pandas": by_pandas,
    "polars": lambda table: polars.DataFrame(table).to_dicts(),
    "duckdb": by_duckdb,
    "pyarrow": lambda table: pyarrow.table(table).to_pylist(),
    "narwhals": lambda table: narwhals.from_arrow(table, backend="polars").rows(named=True),
    "a loop": list,
}

COLUMNS = (
    Column("ID"),
    Column("n", ColumnType.INTEGER),
    Column("day", ColumnType.DATE),
    Column("at", ColumnType.TIME),
)
_AT = datetime(2026, 7, 1, 23, 59, 59, 250001, UTC)
VALUES = [("007", 9007199254740993, date(1899, 12, 31), _AT), ("ü", -1, date(2018, 3, 4), _AT)]
NULLS = [("", None, None, None), (None, None, None, None)]


@pytest.fixture(params=["nanoarrow", "pyarrow"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that builds the batches."""
    if request.param == "pyarrow":
        monkeypatch.setitem(sys.modules, "nanoarrow", None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", LIBRARIES)
def test_values_are_the_same_everywhere(name: str) -> None:
    read = LIBRARIES[name]
    # Twice: a library may take the stream more than once.
    table = ArrowTable("rows", COLUMNS, lambda: iter(VALUES))
    for _ in range(2):
        rows = read(table)
        assert [tuple(row.values()) for row in rows] == VALUES
        assert {value.utcoffset().total_seconds() for value in (row["at"] for row in rows)} == {0}
    assert [tuple(row.values()) for row in read(ArrowTable("rows", COLUMNS, lambda: iter(NULLS)))] == [
        (None,) * 4
    ] * 2
    assert read(ArrowTable("rows", COLUMNS, lambda: iter(()))) == []


@pytest.mark.usefixtures("library")
def test_types_are_kept_where_no_row_has_a_value() -> None:
    schema = pyarrow.table(ArrowTable("rows", COLUMNS, lambda: iter(()))).schema
    assert [str(one) for one in schema.types] == ["string", "int64", "date32[day]", "timestamp[us, tz=UTC]"]
    assert pyarrow.schema(ArrowTable("rows", COLUMNS, lambda: iter(NULLS))) == schema


def test_a_large_table_is_read_a_batch_at_a_time() -> None:
    taken = 0

    def read() -> Iterator[tuple[object, ...]]:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield f"{number:07}", number, date(2018, 3, 4), _AT

    reader = pyarrow.RecordBatchReader.from_stream(ArrowTable("rows", COLUMNS, read))
    rows = 0
    for batch in reader:
        assert batch.num_rows <= BATCH_ROWS
        rows += batch.num_rows
        assert taken - rows <= BATCH_ROWS, "no more than the next batch is in memory"
    assert rows == 100_000


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", ["polars", "duckdb", "pyarrow"])
def test_a_record_that_breaks_is_an_error_with_its_sentence(name: str) -> None:
    def read() -> Iterator[tuple[object, ...]]:
        yield VALUES[0]
        raise LedgerError("the ledger out/.quarry/ledger.db cannot be read")

    with pytest.raises(Exception, match=r"ledger\.db cannot be read"):
        LIBRARIES[name](ArrowTable("rows", COLUMNS, read))


def test_without_a_library_the_extra_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    table = site.result.rows_table()
    with pytest.raises(StartError, match=r"nanoarrow.*pip install 'dicom-quarry\[notebook\]'"):
        table.__arrow_c_stream__()
    assert len(pandas.DataFrame(table)) == 3, "a loop needs neither"


def test_columns_with_the_name_of_another_are_numbered() -> None:
    table = ArrowTable("rows", [Column("ID"), Column("id"), Column("ID_2"), Column("")], lambda: iter(()))
    assert table.column_names == ("ID", "id_2", "ID_2_2", "")


def test_a_lone_surrogate_is_text() -> None:
    table = ArrowTable("rows", [Column("ID")], lambda: iter([("x\udc80",)]))
    assert polars.DataFrame(table).to_dicts() == [{"ID": "x\\udc80"}]


# -- the tables of a job


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_rows_of_a_job(site: Site, name: str) -> None:
    rows = LIBRARIES[name](site.result.rows_table())
    assert [row["Label"] for row in rows] == [f"007 {MARK}", MARK, MARK]
    assert [row["label_2"] for row in rows] == [MARK] * 3
    assert [row["Empty"] for row in rows] == [None] * 3
    assert [row["quarry_row"] for row in rows] == [1, 2, 3]
    assert [row["quarry_outcome"] for row in rows] == ["complete", "complete", "not_found"]
    assert [row["quarry_study_date"] is None for row in rows] == [False, False, True]
    assert [row["quarry_proved_at"] is None for row in rows] == [False, False, True]
    assert [row["quarry_images"] for row in rows][2] == 0
    assert rows[2]["quarry_study_uids"] is None


def test_tables_have_the_columns_of_the_reports(site: Site) -> None:
    out = site.folder / "out"
    tables = (site.result.studies_table(), site.result.instances_table())
    for file, table in zip(("studies.csv", "manifest.csv.gz"), tables, strict=True):
        with duckdb.connect() as connection:
            found = connection.execute("SELECT * FROM read_csv(?, all_varchar = true)", [str(out / file)])
            names = [one[0] for one in found.description]
            number = len(found.fetchall())
        assert list(table.column_names) == names
        assert len(list(table)) == number
    header = (out / "report.csv").read_text().splitlines()[0].split(",")
    assert list(site.result.rows_table().column_names) == [*header[:3], "label_2", *header[4:]]


def test_the_tables_of_a_plan(site: Site) -> None:
    rows = list(site.plan.rows_table())
    assert [(row["Label"], row["quarry_outcome"]) for row in rows] == [
        (f"007 {MARK}", "found"),
        (MARK, "found"),
        (MARK, "not_found"),
    ]
    assert [row["quarry_instances_expected"] for row in rows][2] is None
    studies = polars.DataFrame(site.plan.studies_table())
    assert studies["rows"].to_list() == ["1", "2"]
    assert studies.schema["study_date"] == polars.Date
    assert polars.DataFrame(site.plan.instances_table()).shape == (0, 8)


def test_the_tables_of_a_verification(site: Site) -> None:
    checked = dicom_quarry.verify(site.folder / "out")
    files = polars.DataFrame(checked.instances_table())
    assert files["code"].to_list().count("size") == 1
    assert files["code"].null_count() == len(files) - 1
    assert len(list(checked.rows_table())) == 3
    assert len(list(checked.studies_table())) == 2


def test_a_job_that_still_runs(tmp_path: Any) -> None:
    pause = Pause(after=1)
    with LoggingArchive(demo_holding(), [pause]) as archive:
        office = Office(tmp_path, archive)
        with office.start(["Accession", "QA00003", "QA00004"]) as run:
            assert pause.reached.wait(60)
            job = dicom_quarry.open(tmp_path / "out")
            for read in LIBRARIES.values():
                rows = read(job.rows_table())
                assert [row["quarry_outcome"] for row in rows] == ["pending", "pending"]
                assert [row["quarry_proved_at"] for row in rows] == [None, None]
                assert read(job.instances_table()) == []
            assert job.to_dict()["running"] is True
            assert "running" in repr(job)
            assert "running" in str(job._repr_html_())
            pause.go_on.set()
            run.wait()
            assert len(list(job.instances_table())) == run.wait().summary.instances
