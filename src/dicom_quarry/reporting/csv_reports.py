"""The files that a job leaves beside its images, each streamed from the ledger's views.

``report.csv`` explains the user's rows, ``studies.csv`` the studies, ``manifest.csv.gz`` lists every instance
that is stored, ``missing.csv`` every one that is not. The first two can stand in a workbook as well.
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
from dicom_quarry.reporting.formatting import harmless, harmless_path, instant
from dicom_quarry.system.atomic_file import replacing_text
from dicom_quarry.system.permissions import PRIVATE, Access

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
    "on_complete_said",
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
MISSING_COLUMNS = ("rows", "study_uid", "series_uid", "sop_uid", "sop_class")
DAMAGED_COLUMNS = ("rows", "path", "study_uid", "series_uid", "sop_uid", "code", "problem", "bytes", "sha256")
CHANGES_COLUMNS = ("rows", "archive", "study_uid", "series_uid", "sop_uid", "code", "change")

_Cells = Sequence[object]


class Table(NamedTuple):
    """A header, and the lines below it, which can be read once."""

    header: Sequence[str]
    lines: Iterable[_Cells]


def write_report(
    path: Path, columns: Sequence[str], rows: Iterable[RowView], *, access: Access = PRIVATE
) -> int:
    """Write ``report_table`` as CSV; returns the number of rows."""
    return write_table(path, *report_table(columns, rows), access)


def report_table(columns: Sequence[str], rows: Iterable[RowView]) -> Table:
    """The user's table again, with Quarry's columns at its right.

    The user's cells are as they were read. Where the table is an earlier report, its columns of Quarry's are
    replaced, so that a report can be the next job's table.
    """
    own = [at for at, name in enumerate(columns) if name.strip().casefold() not in REPORT_COLUMNS]
    header = [*(columns[at] for at in own), *REPORT_COLUMNS]
    return Table(header, ([*(row.cells[at] for at in own), *_told(row)] for row in rows))


def _told(row: RowView) -> _Cells:
    outcome = row.outcome
    return (
        outcome.word,
        outcome.code,
        harmless(outcome.reason),
        harmless(outcome.next_step),
        "" if row.same_as_row is None else row.same_as_row,
        row.studies_found,
        row.studies_complete,
        row.instances_expected,
        row.instances_stored,
        row.size,
        instant(row.proved_at),
        harmless(" ".join(row.study_uids)),
    )


def write_studies(path: Path, studies: Iterable[StudyView], *, access: Access = PRIVATE) -> int:
    """Write ``study_table`` as CSV; returns the number of studies."""
    return write_table(path, *study_table(studies), access)


def study_table(studies: Iterable[StudyView]) -> Table:
    """One line a study."""
    return Table(STUDY_COLUMNS, map(_study, studies))


def _study(view: StudyView) -> _Cells:
    study, outcome = view.study, view.outcome
    return (
        _numbers(view.rows),
        harmless(study.patient_id),
        harmless(study.accession),
        harmless(study.study_date),
        harmless(study.modalities),
        harmless(study.description),
        harmless(study.study_uid),
        outcome.word,
        outcome.code,
        harmless(outcome.reason),
        "" if view.expected is None else view.expected,
        view.stored,
        view.size,
        harmless_path(view.folder),
        view.attempts,
        view.hand_over,
        instant(view.hand_over_at),
        harmless(view.hand_over_said),
        instant(view.released_at),
    )


def write_manifest(path: Path, instances: Iterable[InstanceView], *, access: Access = PRIVATE) -> int:
    """Write one line an instance that is stored; returns their number."""
    return write_table(path, MANIFEST_COLUMNS, map(_instance, instances), access)


def _instance(view: InstanceView) -> _Cells:
    ref = view.ref
    return (
        harmless_path(view.path),
        harmless(ref.study_uid),
        harmless(ref.series_uid),
        harmless(ref.sop_uid),
        harmless(ref.sop_class),
        harmless(view.transfer_syntax),
        view.size,
        view.digest.hex(),
    )


def write_missing(path: Path, missing: Iterable[MissingView], *, access: Access = PRIVATE) -> int:
    """Write one line for every instance that the archive lists and that is not here; no file if none.

    The file of an earlier run is removed then: an empty list must not look like an old one.
    """
    rest = iter(missing)
    first = next(rest, None)
    if first is None:
        path.unlink(missing_ok=True)
        return 0
    return write_table(path, MISSING_COLUMNS, map(_absent, chain([first], rest)), access)


def _absent(view: MissingView) -> _Cells:
    ref = view.ref
    uids = (ref.study_uid, ref.series_uid, ref.sop_uid, ref.sop_class)
    return (_numbers(view.rows), *map(harmless, uids))


def write_damaged(path: Path, damaged: Iterable[DamagedView], *, access: Access = PRIVATE) -> int:
    """Write one line for every file that verify found not to be as recorded; returns their number."""
    return write_table(path, DAMAGED_COLUMNS, map(_damaged, damaged), access)


def _damaged(view: DamagedView) -> _Cells:
    uids = (view.study_uid, view.series_uid, view.sop_uid)
    told = (view.code, view.problem, view.size, view.digest)
    return (_numbers(view.rows), harmless_path(view.path), *map(harmless, uids), *told)


def write_changes(path: Path, changes: Iterable[ChangeView], *, access: Access = PRIVATE) -> int:
    """Write one line for everything that an archive lists otherwise than it did; returns their number."""
    return write_table(path, CHANGES_COLUMNS, map(_change, changes), access)


def _change(view: ChangeView) -> _Cells:
    told = (view.archive, view.study_uid, view.series_uid, view.sop_uid, view.code, view.change)
    return (_numbers(view.rows), *map(harmless, told))


def _numbers(rows: Iterable[int]) -> str:
    """Row numbers in one cell; with commas between them a spreadsheet might read one large number."""
    return " ".join(map(str, rows))


def write_table(path: Path, header: Sequence[str], lines: Iterable[_Cells], access: Access = PRIVATE) -> int:
    """Write a CSV file that appears whole or not at all; returns the number of lines below the header."""
    count = 0
    with replacing_text(path, access) as stream:
        # CRLF (RFC 4180) makes the csv module quote cells with either line break, so they read back the same.
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(header)
        for cells in lines:
            writer.writerow(cells)
            count += 1
    return count
