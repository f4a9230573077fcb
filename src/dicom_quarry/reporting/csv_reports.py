"""The CSV files in the folder of a job, each streamed from the views of the ledger.

``report.csv`` explains the user's rows and ``studies.csv`` the studies; ``manifest.csv.gz`` lists every
stored instance and ``missing.csv`` every missing one. The first two can also be written as a workbook.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

from dicom_quarry.ledger.views import (
    ChangeView,
    DamagedView,
    InstanceView,
    MissingView,
    RowView,
    StudyView,
)
from dicom_quarry.model import SETTLED
from dicom_quarry.reporting.formatting import escape_cell, escape_path, format_timestamp
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.permissions import PRIVATE, Permissions

#: What most people read is first; counts, code and UIDs are last.
REPORT_COLUMNS = (
    "quarry_row",
    "quarry_line",
    "quarry_outcome",
    "quarry_reason",
    "quarry_what_to_do",
    "quarry_folders",
    "quarry_study_date",
    "quarry_modality",
    "quarry_description",
    "quarry_images",
    "quarry_same_as_row",
    "quarry_studies_found",
    "quarry_studies_complete",
    "quarry_instances_expected",
    "quarry_instances_stored",
    "quarry_bytes",
    "quarry_proved_at",
    "quarry_code",
    "quarry_study_uids",
)
#: Columns of reports of earlier versions.
_FORMER_COLUMNS = frozenset({"quarry_next_step"})
#: Separates the folders, dates, modalities and descriptions of a row with several studies.
FOLDER_SEPARATOR = " | "
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

_REPLACED_COLUMNS = frozenset(REPORT_COLUMNS) | _FORMER_COLUMNS

_Cells = Sequence[object]


class ReportTable(NamedTuple):
    """A header, and the lines below it, which can be iterated once.

    The first ``own_columns`` are the user's (None: all of them), the others Quarry's.
    """

    header: Sequence[str]
    lines: Iterable[_Cells]
    own_columns: int | None = None


def write_report(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[RowView],
    *,
    permissions: Permissions = PRIVATE,
    bom: bool = False,
) -> int:
    """Write ``make_report_table`` as CSV; returns the number of rows."""
    return write_csv(path, *make_report_table(columns, rows)[:2], permissions, bom=bom)


def write_problems(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[RowView],
    *,
    permissions: Permissions = PRIVATE,
    bom: bool = False,
) -> int:
    """Write the rows of the report that need attention; returns their number.

    If there is none, no file is written and that of an earlier run is removed.
    """
    table = make_report_table(columns, filter(needs_attention, rows))
    return _write_or_remove(path, table.header, table.lines, permissions, bom)


def needs_attention(row: RowView) -> bool:
    """Return True for a row that is neither complete nor filtered by the user's own options."""
    return row.outcome.status not in SETTLED


def make_report_table(columns: Sequence[str], rows: Iterable[RowView]) -> ReportTable:
    """Return the user's table, unchanged, with Quarry's columns on the right.

    If the table is an earlier report, its columns of Quarry are replaced, so that a report can be the next
    job's table.
    """
    own = own_columns(columns)
    header = [*(columns[at] for at in own), *REPORT_COLUMNS]
    lines = ([*(row.cells[at] for at in own), *_row_cells(row)] for row in rows)
    return ReportTable(header, lines, len(own))


def own_columns(columns: Sequence[str]) -> list[int]:
    """Return the places of the user's columns in a table that may be an earlier report."""
    return [at for at, name in enumerate(columns) if name.strip().casefold() not in _REPLACED_COLUMNS]


def _row_cells(row: RowView) -> _Cells:
    outcome, studies = row.outcome, row.studies
    return (
        row.row,
        row.line,
        outcome.status,
        escape_cell(outcome.reason),
        escape_cell(outcome.next_step),
        FOLDER_SEPARATOR.join([escape_path(folder) for folder in row.folders if folder]),
        join_texts([escape_cell(study.study_date) for study in studies]),
        join_texts([escape_cell(study.modalities) for study in studies]),
        join_texts([escape_cell(study.description) for study in studies]),
        row.instances_stored,
        "" if row.same_as_row is None else row.same_as_row,
        row.studies_found,
        row.studies_complete,
        row.instances_expected,
        row.instances_stored,
        row.size,
        format_timestamp(row.proved_at),
        outcome.code,
        escape_cell(" ".join([study.study_uid for study in studies])),
    )


def join_texts(texts: Sequence[str]) -> str:
    """Join the texts of a row's studies; empty if no study has one."""
    return FOLDER_SEPARATOR.join(texts) if any(texts) else ""


def write_studies(
    path: Path, studies: Iterable[StudyView], *, permissions: Permissions = PRIVATE, bom: bool = False
) -> int:
    """Write ``make_study_table`` as CSV; returns the number of studies."""
    return write_csv(path, *make_study_table(studies)[:2], permissions, bom=bom)


def make_study_table(studies: Iterable[StudyView]) -> ReportTable:
    """Return a table with one line for each study."""
    return ReportTable(STUDY_COLUMNS, map(_study_cells, studies), 0)


def _study_cells(view: StudyView) -> _Cells:
    study, outcome = view.study, view.outcome
    return (
        join_numbers(view.rows),
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


def hash_manifest(instances: Iterable[InstanceView]) -> str:
    """Return the SHA-256 of the text that ``write_manifest`` packs, in hexadecimal."""
    sink = _HashSink()
    _write_lines(sink, MANIFEST_COLUMNS, map(_instance_cells, instances))
    return sink.digest.hexdigest()


class _HashSink:
    """Computes the SHA-256 of the text that is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, text: str) -> None:
        """Add text."""
        self.digest.update(text.encode())


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


def write_missing(
    path: Path, missing: Iterable[MissingView], *, permissions: Permissions = PRIVATE, bom: bool = False
) -> int:
    """Write one line for each instance that the archive lists and that is not stored; returns their number.

    If there is none, no file is written and that of an earlier run is removed.
    """
    return _write_or_remove(path, MISSING_COLUMNS, map(_missing_cells, missing), permissions, bom)


def _write_or_remove(
    path: Path, header: Sequence[str], lines: Iterable[_Cells], permissions: Permissions, bom: bool
) -> int:
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        path.unlink(missing_ok=True)
        return 0
    return write_csv(path, header, chain([first], rest), permissions, bom=bom)


def _missing_cells(view: MissingView) -> _Cells:
    ref = view.ref
    uids = (ref.study_uid, ref.series_uid, ref.sop_uid, ref.sop_class)
    return (join_numbers(view.rows), *map(escape_cell, uids), escape_cell(view.reason))


def write_damaged(path: Path, damaged: Iterable[DamagedView], *, permissions: Permissions = PRIVATE) -> int:
    """Write one line for each file that verify found changed, missing or unrecorded; returns their number."""
    return write_csv(path, DAMAGED_COLUMNS, map(_damaged_cells, damaged), permissions)


def _damaged_cells(view: DamagedView) -> _Cells:
    uids = (view.study_uid, view.series_uid, view.sop_uid)
    details = (view.code, view.problem, view.size, view.digest)
    return (join_numbers(view.rows), escape_path(view.path), *map(escape_cell, uids), *details)


def write_changes(path: Path, changes: Iterable[ChangeView], *, permissions: Permissions = PRIVATE) -> int:
    """Write one line for each change in what an archive lists; returns their number."""
    return write_csv(path, CHANGES_COLUMNS, map(_change_cells, changes), permissions)


def _change_cells(view: ChangeView) -> _Cells:
    details = (view.archive, view.study_uid, view.series_uid, view.sop_uid, view.code, view.change)
    return (join_numbers(view.rows), *map(escape_cell, details))


def join_numbers(rows: Iterable[int]) -> str:
    """Join row numbers in one cell; with commas, a spreadsheet might read one large number."""
    return " ".join(map(str, rows))


def write_sha256sums(
    path: Path, instances: Iterable[InstanceView], *, permissions: Permissions = PRIVATE
) -> int:
    """Write the checksums of the stored files that are here, as ``sha256sum`` does; returns their number.

    A safe name has no character that ``sha256sum`` would escape.
    """
    number = 0
    with atomic_write_text(path, permissions) as stream:
        for view in instances:
            if not view.released:
                stream.write(f"{view.digest.hex()}  {view.path}\n")
                number += 1
    return number


def write_csv(
    path: Path,
    header: Sequence[str],
    lines: Iterable[_Cells],
    permissions: Permissions = PRIVATE,
    *,
    bom: bool = False,
) -> int:
    """Write a CSV file atomically; returns the number of lines below the header.

    ``bom``: begin with a byte order mark, by which Excel recognises UTF-8.
    """
    with atomic_write_text(path, permissions) as stream:
        stream.write("\ufeff" * bom)
        return _write_lines(stream, header, lines)


class _Sink(Protocol):
    def write(self, text: str, /) -> object: ...


def _write_lines(stream: _Sink, header: Sequence[str], lines: Iterable[_Cells]) -> int:
    """Write a header and lines as CSV; return the number of lines below the header."""
    count = 0
    # CRLF (RFC 4180) makes the csv module quote cells with either line break, so they read back the same.
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(header)
    for cells in lines:
        writer.writerow(cells)
        count += 1
    return count
