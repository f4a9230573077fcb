"""A job's record in the ledger: created from a cohort, continued, updated; refused if they do not match."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection

from dicom_quarry.cohort.cohort import CohortFile, describe_row_errors
from dicom_quarry.cohort.column_use import list_other_headers
from dicom_quarry.cohort.columns import map_columns
from dicom_quarry.cohort.headers import show_header
from dicom_quarry.cohort.input_source import STANDARD_INPUT
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.cohort.study_filter import SeriesFilter
from dicom_quarry.config.layouts import describe_filepath
from dicom_quarry.config.settings import Settings, parse_recorded_settings
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.naming import NAMES, check_names, choose_names, recorded_names
from dicom_quarry.jobs.option_changes import OptionChanges
from dicom_quarry.ledger.cohort_rows import CohortChange, insert_rows, replace_rows
from dicom_quarry.ledger.ledger import Ledger, write_metadata
from dicom_quarry.model import Request
from dicom_quarry.version import __version__


def parse_read_options(settings: Settings) -> ReadOptions:
    """Return the options for reading the table; raise ConfigError."""
    return ReadOptions.parse(
        allow_wildcards=settings.allow_wildcards,
        whole_patients=settings.whole_patients,
        map=settings.map,
        where=settings.where,
        date_format=settings.date_format,
        rewrite=settings.rewrite,
        pad=settings.pad,
        ignore_column=settings.ignore_column,
        verbatim=settings.verbatim,
        hidden_rows=settings.hidden_rows or "",
        long_identifiers=settings.long_identifiers,
    )


def parse_series_filter(settings: Settings) -> SeriesFilter:
    """Return the series filter of the settings; raise ConfigError."""
    return SeriesFilter.parse(settings.series, settings.series_not, settings.min_instances)


def read_cohort(path: Path, settings: Settings) -> tuple[CohortFile, int]:
    """Open the user's table and check every row; return it with the number of its rows.

    Raises InputError with the rows that cannot be used, unless the settings skip them.
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
            "Correct these rows, or skip them with --skip-bad-rows (the report lists them)"
        )
    return cohort, rows


def record_cohort(ledger: Ledger, cohort: CohortFile, metadata: Mapping[str, str]) -> None:
    """Write the cohort and its metadata into an empty ledger."""

    def work(connection: Connection) -> None:
        insert_rows(connection, cohort.read_requests())
        write_metadata(connection, dict(metadata))

    ledger.database.write(work)


def list_unused_columns(ledger: Ledger, settings: Settings) -> tuple[str, ...]:
    """Return the columns of the job's table that its rows are not searched by."""
    options = parse_read_options(settings)
    columns = json.loads(ledger.metadata().get("columns", "[]"))
    try:
        keys = map_columns(columns, options.mapping, options.ignored)
    except InputError:  # an earlier version accepted headers that are refused today
        return ()
    return tuple(map(show_header, list_other_headers(columns, {position for position, _ in keys})))


def build_plan_metadata(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    """Return the metadata of a plan that starts now."""
    return {"created": _now(), **_build_metadata(cohort, settings)}


def build_job_metadata(cohort: CohortFile, settings: Settings, out: Path) -> dict[str, str]:
    """Return the metadata of a job that starts now in the folder ``out``, which exists. Raises InputError."""
    names = choose_names(out, portable=settings.portable_names)
    return {**build_plan_metadata(cohort, settings), NAMES: names}


def begin_or_continue(
    ledger: Ledger,
    cohort: CohortFile,
    settings: Settings,
    *,
    update: bool,
    changes: OptionChanges | None = None,
) -> CohortChange | None:
    """Start the job's record, or check that cohort and settings match it; return the changes of an update.

    ``changes`` are those of the options, if they were compared before. Raises InputError if the cohort, or an
    option that is refused, does not match.
    """
    metadata = ledger.metadata()
    if "cohort" not in metadata:
        record_cohort(ledger, cohort, build_job_metadata(cohort, settings, settings.to))
        return None
    previous = parse_recorded_settings(metadata)
    changes = changes or OptionChanges.check(ledger, previous, settings)
    _check_same_paths(previous, settings)
    check_names(recorded_names(metadata), settings.to, portable=settings.portable_names)
    update = update or (metadata["cohort"] == cohort.digest and changes.rereads_table)
    if metadata["cohort"] == cohort.digest and not update:
        if previous != settings or metadata.get("table") != _table_path(cohort):
            ledger.set_metadata(settings=settings.model_dump_json(), table=_table_path(cohort))
        return None
    is_same_table = cohort.digest_with(parse_read_options(previous)) == metadata["cohort"]
    if not update and is_same_table and changes.update_reason:
        raise InputError(
            f"{changes.update_reason}: the rows would be searched in another way. Give the options as "
            "before, or run again with --update to search the rows again (stored files stay), or extract to "
            "another folder"
        )
    if not update:
        raise InputError(
            "the cohort file has changed since this job was started: run again with --update to use the new "
            "rows (stored files stay), or extract to another folder"
        )

    def replace_cohort(connection: Connection) -> CohortChange:
        write_metadata(connection, _build_metadata(cohort, settings))
        return replace_rows(connection, cohort.read_requests())

    return ledger.database.write(replace_cohort)


def _check_same_paths(previous: Settings, settings: Settings) -> None:
    """Raise InputError if files would have other names than those of the job's last run."""
    if previous.filepath != settings.filepath:
        raise InputError(
            f"the files in {settings.to} are named by {describe_filepath(previous.filepath)}: give that "
            "option again, or another folder"
        )


def compare_options(
    ledger: Ledger, settings: Settings, *, archive_moved: bool = False
) -> OptionChanges | None:
    """Compare the options with those of the job's last run, None if there was none. Raises InputError."""
    metadata = ledger.metadata()
    if "settings" not in metadata:
        return None
    previous = parse_recorded_settings(metadata)
    return OptionChanges.check(ledger, previous, settings, archive_moved=archive_moved)


def record_options(ledger: Ledger, settings: Settings, names: Collection[str]) -> None:
    """Record some settings of a retry, for the runs after it."""
    previous = parse_recorded_settings(ledger.metadata())
    changed = previous.model_copy(update={name: getattr(settings, name) for name in names})
    if changed != previous:
        ledger.set_metadata(settings=changed.model_dump_json())


def _build_metadata(cohort: CohortFile, settings: Settings) -> dict[str, str]:
    return {
        "cohort": cohort.digest,
        "table": _table_path(cohort),
        "columns": json.dumps(cohort.columns),
        "settings": settings.model_dump_json(),
        "version": __version__,
    }


def _table_path(cohort: CohortFile) -> str:
    """Return the absolute path of a table, empty for standard input."""
    return "" if cohort.path == STANDARD_INPUT else str(cohort.path.absolute())


def describe_table_change(metadata: Mapping[str, str], settings: Settings) -> str:
    """Describe how the table of a job differs from its record; empty if it does not, or is not known."""
    path = metadata.get("table", "")
    if not path:
        return ""
    try:
        if CohortFile(Path(path), parse_read_options(settings)).digest == metadata["cohort"]:
            return ""
    except InputError:
        return f"the table {path} cannot be read any more; the rows of the job's record are used"
    return (
        f"the table {path} has changed since; the rows of the job's record are used. To use the new rows, "
        "run quarry extract with the table and --update"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
