"""Small jobs for tests of the ledger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import inspect

from dicom_quarry.ledger.backend import backend_of
from dicom_quarry.ledger.cohort_rows import insert_rows
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Attempt, Ledger, TaskResult, write_metadata
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.model import InstanceRef, Request, Selection, Study

ARCHIVE = "main"
CT = "1.2.840.10008.5.1.4.1.1.2"
LITTLE = "1.2.840.10008.1.2.1"


def request(row: int, accession: str = "", *, problem: str = "", cells: Sequence[str] = ()) -> Request:
    keys = (("AccessionNumber", accession),) if accession and not problem else ()
    return Request(row, row + 1, keys, tuple(cells) or (accession,), problem)


def study(number: int, patient: str = "4711") -> Study:
    return Study(f"1.2.{number}", patient, f"A{number}", "20180723", "CT", "CHEST", 1, 3)


def ref(study_uid: str, number: int) -> InstanceRef:
    return InstanceRef(study_uid, f"{study_uid}.1", f"{study_uid}.1.{number}", CT)


def stored_row(study_uid: str, number: int, *, listed: bool = True, path: str | None = None) -> InstanceRow:
    return InstanceRow(ref(study_uid, number), listed, LITTLE, 100 + number, bytes([number]) * 32, path)


def missing_row(study_uid: str, number: int) -> InstanceRow:
    return InstanceRow(ref(study_uid, number), True)


def begin(ledger: Ledger, rows: Iterable[Request], columns: Sequence[str] = ("Accession",)) -> None:
    def work(connection: object) -> None:
        insert_rows(connection, rows)  # type: ignore[arg-type]
        write_metadata(connection, {"columns": json.dumps(columns)})  # type: ignore[arg-type]

    ledger.database.write(work)


def resolve(ledger: Ledger, row: Request, *studies: Study) -> None:
    ledger.resolve_request(row, ARCHIVE, [(one, Selection()) for one in studies]).result()


def task_id(ledger: Ledger, study_uid: str) -> int:
    task = ledger.task_of(study_uid)
    assert task is not None
    return task.task_id


def conclude(ledger: Ledger, study_uid: str, rows: Sequence[InstanceRow]) -> None:
    """End the task of a study: complete if nothing of the rows is missing."""
    lacking = sum(row.digest is None for row in rows)
    code = "instances_missing" if lacking else "all_listed_stored"
    details = {"missing": lacking, "expected": len(rows)} if lacking else {"instances": len(rows)}
    ledger.conclude_task(task_id(ledger, study_uid), end(code, details, rows)).result()


def end(code: str, details: Mapping[str, object], rows: Sequence[InstanceRow] = ()) -> TaskResult:
    stored = [row for row in rows if row.digest is not None]
    return TaskResult(
        code=code,
        details=details,
        expected=sum(row.listed for row in rows),
        stored=len(stored),
        size=sum(row.size or 0 for row in stored),
        folder="4711",
        proved_at=1.5e9 if code == "all_listed_stored" else None,
        instances=rows,
    )


def attempt(gained: int = 0, verdict: str = "success", level: str = "STUDY") -> Attempt:
    return Attempt(1.0, 2.0, level, 3, gained, verdict, 0, "")


def derive(study: Study, ref: InstanceRef) -> PurePosixPath:
    return PurePosixPath(study.patient_id, ref.study_uid, f"{ref.sop_uid}.dcm")


class TableSchema(NamedTuple):
    """A table as the database describes it: columns with type, null and default; names of indexes."""

    columns: list[tuple[str, str, bool, str | None]]
    primary_key: list[str]
    foreign_keys: list[tuple[list[str], str]]
    unique: list[list[str]]
    indexes: list[str]


def read_schema(path: LedgerLocation) -> dict[str, TableSchema]:
    engine = backend_of(path).open_engine(read_only=True)
    try:
        found = inspect(engine)
        return {
            name: TableSchema(
                [
                    (one["name"], str(one["type"]), one["nullable"], one["default"])
                    for one in found.get_columns(name)
                ],
                found.get_pk_constraint(name)["constrained_columns"],
                sorted(
                    (one["constrained_columns"], one["referred_table"])
                    for one in found.get_foreign_keys(name)
                ),
                sorted(one["column_names"] for one in found.get_unique_constraints(name)),
                sorted(
                    str(one["name"]) for one in found.get_indexes(name) if "duplicates_constraint" not in one
                ),
            )
            for name in found.get_table_names()
        }
    finally:
        engine.dispose()


def read_version(path: LedgerLocation) -> list[tuple[int]]:
    return raw_query(path, "select version from schema_version")


def raw_query(place: LedgerLocation, statement: str) -> list[Any]:
    """Run a statement on a ledger behind Quarry's back; return its rows."""
    connection: Any = (
        sqlite3.connect(place)
        if isinstance(place, Path)
        else psycopg.connect(place.url, options=f"-c search_path={place.schema}")
    )
    with closing(connection), connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
