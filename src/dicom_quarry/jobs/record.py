"""A job's record: begun from a cohort, continued, updated; and refused where the two do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from dicom_quarry.cohort.cohort import CohortFile, describe_row_errors
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.cohort.study_filter import SeriesFilter
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError
from dicom_quarry.ledger.cohort_rows import CohortChange, insert_rows, replace_rows
from dicom_quarry.ledger.ledger import Ledger, write_metadata
from dicom_quarry.model import Request
from dicom_quarry.version import __version__

T = TypeVar("T")


def parse_read_options(settings: Settings) -> ReadOptions:
    """How the settings want the table to be read; raises ConfigError."""
    return ReadOptions.parse(
        allow_wildcards=settings.allow_wildcards,
        whole_patients=settings.whole_patients,
        map=settings.map,
        where=settings.where,
        date_format=settings.date_format,
        rewrite=settings.rewrite,
        pad=settings.pad,
    )


def parse_series_filter(settings: Settings) -> SeriesFilter:
    """Which series the settings want; raises ConfigError."""
    return SeriesFilter.parse(settings.series, settings.series_not, settings.min_instances)


def read_cohort(path: Path, settings: Settings) -> tuple[CohortFile, int]:
    """Open the user's table and look at every row once; returns it with the number of its rows.

    Raises InputError with the rows that cannot be used, unless the settings allow to go on without them.
    """
    cohort = CohortFile(path, parse_read_options(settings))
    rows = 0

    def count_rows() -> Iterator[Request]:
        nonlocal rows
        for request in cohort.read_requests():
            rows += 1
            yield request

    problems = describe_row_errors(count_rows())
    if problems and not settings.skip_bad_rows:
        raise InputError(
            f"{cohort.name}: {problems}\n"
            "correct them, or go on without them with --skip-bad-rows (the report names them)"
        )
    return cohort, rows


def record_cohort(ledger: Ledger, cohort: CohortFile, settings: Settings) -> None:
    """Enter the cohort in a ledger that has nothing in it."""

    def work(connection: Connection) -> None:
        insert_rows(connection, cohort.read_requests())
        write_metadata(connection, build_initial_metadata(cohort, settings))

    ledger.database.write(work)


def build_initial_metadata(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    """What is noted about a job that begins now."""
    return {"created": _now(), **_build_metadata(cohort, settings)}


def begin_or_continue(
    ledger: Ledger, cohort: CohortFile, settings: Settings, *, update: bool
) -> CohortChange | None:
    """Begin the job, or make sure that this is the job that was begun; returns what an update changed.

    Raises InputError if the cohort, the archive or the path pattern is not that of the job.
    """
    metadata = ledger.metadata()
    if "cohort" not in metadata:
        record_cohort(ledger, cohort, settings)
        return None
    previous = Settings.model_validate_json(metadata["settings"])
    if previous.filepath != settings.filepath:
        raise InputError(
            f"{settings.to} is laid out by --filepath '{previous.filepath}': use that, or another folder"
        )
    removed = {archive.name for archive in previous.archives} - {
        archive.name for archive in settings.archives
    }
    if removed:
        names = ", ".join(sorted(removed))
        raise InputError(f"{settings.to} is being filled from {names}: use that archive, or another folder")
    if previous.exclude and not settings.exclude:
        raise InputError(
            f"this job was begun with --exclude {previous.exclude[0]}: give that list again, or its successor"
        )
    if metadata["cohort"] == cohort.digest and not update:
        if previous != settings:
            ledger.set_metadata(settings=settings.model_dump_json())
        return None
    if not update:
        raise InputError(
            "the cohort file has changed since this job was begun: run again with --update to take it "
            "(what is stored stays), or extract to another folder"
        )

    def replace_cohort(connection: Connection) -> CohortChange:
        write_metadata(connection, _build_metadata(cohort, settings))
        return replace_rows(connection, cohort.read_requests())

    return ledger.database.write(replace_cohort)


def load_previous_setting(ledger: Ledger, select: Callable[[Settings], T]) -> T | None:
    """Something of the settings that the job was last run with; None if this is its first run."""
    stored = ledger.metadata().get("settings")
    return None if stored is None else select(Settings.model_validate_json(stored))


def _build_metadata(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    return {
        "cohort": cohort.digest,
        "columns": json.dumps(cohort.columns),
        "settings": settings.model_dump_json(),
        "version": __version__,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
