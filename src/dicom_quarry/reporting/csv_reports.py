"""The CSV files in the folder of a job, each streamed from the views of the ledger.

``report.csv`` explains the user's rows and ``studies.csv`` the studies; ``manifest.csv.gz`` lists every
stored instance and ``missing.csv`` every missing one. The first two can also be written as a workbook.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from dicom_quarry.ledger.views import (
    ChangeView,
    DamagedView,
    InstanceView,
    MissingView,
    RowView,
    StudyView,
)
from dicom_quarry.reporting.formatting import escape_cell, escape_path, format_timestamp
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.permissions import PRIVATE, Permissions

REPORT_COLUMNS = (
    "quarry_outcome",
    "quarry_code",
    "quarry_reason",
    "quarry_next_step",
    "quarry_same_as_row",
    "quarry_studies_found",
    "quarry_studies_complete",
    "quarry_instances_expected",
    "quarry_instances_stored",
    "quarry_bytes",
    "quarry_proved_at",
    "quarry_study_uids",
)
STUDY_COLUMNS = (
    "rows",
    "patient_id",
    "accession",
    "study_date",
    "modality",
    "description",
    "study_uid",
    "outcome",
    "code",
    "reason",
    "expected",
    "stored",
    "bytes",
    "folder",
    "attempts",
    "on_complete",
    "on_complete_at",
    "on_complete_error",
    "released_at",
)
MANIFEST_COLUMNS = (
    "path",
    "study_uid",
    "series_uid",
    "sop_uid",
    "sop_class",
    "transfer_syntax",
    "bytes",
    "sha256",
)
MISSING_COLUMNS = ("rows", "study_uid", "series_uid", "sop_uid", "sop_class", "reason")
DAMAGED_COLUMNS = ("rows", "path", "study_uid", "series_uid", "sop_uid", "code", "problem", "bytes", "sha256")
CHANGES_COLUMNS = ("rows", "archive", "study_uid", "series_uid", "sop_uid", "code", "change")

_Cells = Sequence[object]


class ReportTable(NamedTuple):
    """A header, and the lines below it, which can be iterated once."""

    header: Sequence[str]
    lines: Iterable[_Cells]


def write_report(
    path: Path, columns: Sequence[str], rows: Iterable[RowView], *, permissions: Permissions = PRIVATE
) -> int:
    """Write ``make_report_table`` as CSV; returns the number of rows."""
    return write_csv(path, *make_report_table(columns, rows), permissions)


def make_report_table(columns: Sequence[str], rows: Iterable[RowView]) -> ReportTable:
    """Return the user's table, unchanged, with Quarry's columns on the right.

    If the table is an earlier report, its columns of Quarry are replaced, so that a report can be the next
    job's table.
    """
    own = [at for at, name in enumerate(columns) if name.strip().casefold() not in REPORT_COLUMNS]
    header = [*(columns[at] for at in own), *REPORT_COLUMNS]
    return ReportTable(header, ([*(row.cells[at] for at in own), *_row_cells(row)] for row in rows))


def _row_cells(row: RowView) -> _Cells:
    outcome = row.outcome
    return (
        outcome.status,
        outcome.code,
        escape_cell(outcome.reason),
        escape_cell(outcome.next_step),
        "" if row.same_as_row is None else row.same_as_row,
        row.studies_found,
        row.studies_complete,
        row.instances_expected,
        row.instances_stored,
        row.size,
        format_timestamp(row.proved_at),
        escape_cell(" ".join(row.study_uids)),
    )


def write_studies(path: Path, studies: Iterable[StudyView], *, permissions: Permissions = PRIVATE) -> int:
    """Write ``make_study_table`` as CSV; returns the number of studies."""
    return write_csv(path, *make_study_table(studies), permissions)


def make_study_table(studies: Iterable[StudyView]) -> ReportTable:
    """Return a table with one line for each study."""
    return ReportTable(STUDY_COLUMNS, map(_study_cells, studies))


def _study_cells(view: StudyView) -> _Cells:
    study, outcome = view.study, view.outcome
    return (
        _join_numbers(view.rows),
        escape_cell(study.patient_id),
        escape_cell(study.accession),
        escape_cell(study.study_date),
        escape_cell(study.modalities),
        escape_cell(study.description),
        escape_cell(study.study_uid),
        outcome.status,
        outcome.code,
        escape_cell(outcome.reason),
        "" if view.expected is None else view.expected,
        view.stored,
        view.size,
        escape_path(view.folder),
        view.attempts,
        view.on_complete_state,
        format_timestamp(view.on_complete_at),
        escape_cell(view.on_complete_error),
        format_timestamp(view.released_at),
    )


def write_manifest(
    path: Path, instances: Iterable[InstanceView], *, permissions: Permissions = PRIVATE
) -> int:
    """Write one line for each stored instance; returns their number."""
    return write_csv(path, MANIFEST_COLUMNS, map(_instance_cells, instances), permissions)


def _instance_cells(view: InstanceView) -> _Cells:
    ref = view.ref
    return (
        escape_path(view.path),
        escape_cell(ref.study_uid),
        escape_cell(ref.series_uid),
        escape_cell(ref.sop_uid),
        escape_cell(ref.sop_class),
        escape_cell(view.transfer_syntax),
        view.size,
        view.digest.hex(),
    )


def write_missing(path: Path, missing: Iterable[MissingView], *, permissions: Permissions = PRIVATE) -> int:
    """Write one line for each instance that the archive lists and that is not stored; returns their number.

    If there is none, no file is written and the file of an earlier run is removed.
    """
    rest = iter(missing)
    first = next(rest, None)
    if first is None:
        path.unlink(missing_ok=True)
        return 0
    return write_csv(path, MISSING_COLUMNS, map(_missing_cells, chain([first], rest)), permissions)


def _missing_cells(view: MissingView) -> _Cells:
    ref = view.ref
    uids = (ref.study_uid, ref.series_uid, ref.sop_uid, ref.sop_class)
    return (_join_numbers(view.rows), *map(escape_cell, uids), escape_cell(view.reason))


def write_damaged(path: Path, damaged: Iterable[DamagedView], *, permissions: Permissions = PRIVATE) -> int:
    """Write one line for each file that verify found changed, missing or unrecorded; returns their number."""
    return write_csv(path, DAMAGED_COLUMNS, map(_damaged_cells, damaged), permissions)


def _damaged_cells(view: DamagedView) -> _Cells:
    uids = (view.study_uid, view.series_uid, view.sop_uid)
    details = (view.code, view.problem, view.size, view.digest)
    return (_join_numbers(view.rows), escape_path(view.path), *map(escape_cell, uids), *details)


def write_changes(path: Path, changes: Iterable[ChangeView], *, permissions: Permissions = PRIVATE) -> int:
    """Write one line for each change in what an archive lists; returns their number."""
    return write_csv(path, CHANGES_COLUMNS, map(_change_cells, changes), permissions)


def _change_cells(view: ChangeView) -> _Cells:
    details = (view.archive, view.study_uid, view.series_uid, view.sop_uid, view.code, view.change)
    return (_join_numbers(view.rows), *map(escape_cell, details))


def _join_numbers(rows: Iterable[int]) -> str:
    """Join row numbers in one cell; with commas, a spreadsheet might read one large number."""
    return " ".join(map(str, rows))


def write_csv(
    path: Path, header: Sequence[str], lines: Iterable[_Cells], permissions: Permissions = PRIVATE
) -> int:
    """Write a CSV file atomically; returns the number of lines below the header."""
    count = 0
    with atomic_write_text(path, permissions) as stream:
        # CRLF (RFC 4180) makes the csv module quote cells with either line break, so they read back the same.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(header)
        for cells in lines:
            writer.writerow(cells)
            count += 1
    return count
