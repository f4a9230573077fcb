"""A job's record: begun from a cohort, continued, updated; and refused where the two do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from dicom_quarry.cohort.cohort import CohortFile
from dicom_quarry.cohort.read_options import ReadingOptions
from dicom_quarry.cohort.row_errors import explain
from dicom_quarry.cohort.series_filter import SeriesFilter
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError
from dicom_quarry.ledger.cohort_rows import CohortChange, enter_rows, exchange_rows
from dicom_quarry.ledger.ledger import Ledger, note_facts
from dicom_quarry.model import Request
from dicom_quarry.version import __version__

T = TypeVar("T")


def reading(settings: Settings) -> ReadingOptions:
    """How the settings want the table to be read; raises ConfigError."""
    return ReadingOptions.parse(
        allow_wildcards=settings.allow_wildcards,
        whole_patients=settings.whole_patients,
        map=settings.map,
        where=settings.where,
        date_format=settings.date_format,
        rewrite=settings.rewrite,
        pad=settings.pad,
    )


def series_filter(settings: Settings) -> SeriesFilter:
    """Which series the settings want; raises ConfigError."""
    return SeriesFilter.parse(settings.series, settings.series_not, settings.min_instances)


def read(path: Path, settings: Settings) -> tuple[CohortFile, int]:
    """Open the user's table and look at every row once; returns it with the number of its rows.

    Raises InputError with the rows that cannot be used, unless the settings allow to go on without them.
    """
    cohort = CohortFile(path, reading(settings))
    rows = 0

    def counted() -> Iterator[Request]:
        nonlocal rows
        for request in cohort.requests():
            rows += 1
            yield request

    problems = explain(counted())
    if problems and not settings.skip_bad_rows:
        raise InputError(
            f"{cohort.name}: {problems}\n"
            "correct them, or go on without them with --skip-bad-rows (the report names them)"
        )
    return cohort, rows


def begin(ledger: Ledger, cohort: CohortFile, settings: Settings) -> None:
    """Enter the cohort in a ledger that has nothing in it."""

    def work(connection: Connection) -> None:
        enter_rows(connection, cohort.requests())
        note_facts(connection, first_facts(cohort, settings))

    ledger.database.write(work)


def first_facts(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    """What is noted about a job that begins now."""
    return {"created": _now(), **_facts(cohort, settings)}


def enter(ledger: Ledger, cohort: CohortFile, settings: Settings, *, update: bool) -> CohortChange | None:
    """Begin the job, or make sure that this is the job that was begun; returns what an update changed.

    Raises InputError if the cohort, the archive or the path pattern is not that of the job.
    """
    facts = ledger.facts()
    if "cohort" not in facts:
        begin(ledger, cohort, settings)
        return None
    before = Settings.model_validate_json(facts["settings"])
    if before.filepath != settings.filepath:
        raise InputError(
            f"{settings.to} is laid out by --filepath '{before.filepath}': use that, or another folder"
        )
    gone = {archive.name for archive in before.archives} - {archive.name for archive in settings.archives}
    if gone:
        names = ", ".join(sorted(gone))
        raise InputError(f"{settings.to} is being filled from {names}: use that archive, or another folder")
    if before.exclude and not settings.exclude:
        raise InputError(
            f"this job was begun with --exclude {before.exclude[0]}: give that list again, or its successor"
        )
    if facts["cohort"] == cohort.digest and not update:
        if before != settings:
            ledger.note(settings=settings.model_dump_json())
        return None
    if not update:
        raise InputError(
            "the cohort file has changed since this job was begun: run again with --update to take it "
            "(what is stored stays), or extract to another folder"
        )

    def exchange(connection: Connection) -> CohortChange:
        note_facts(connection, _facts(cohort, settings))
        return exchange_rows(connection, cohort.requests())

    return ledger.database.write(exchange)


def before(ledger: Ledger, of: Callable[[Settings], T]) -> T | None:
    """Something of the settings that the job was last run with; None if this is its first run."""
    noted = ledger.facts().get("settings")
    return None if noted is None else of(Settings.model_validate_json(noted))


def _facts(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    return {
        "cohort": cohort.digest,
        "columns": json.dumps(cohort.columns),
        "settings": settings.model_dump_json(),
        "version": __version__,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
