"""The last sections of report.html: a paragraph for a paper, and the software with its settings."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_quarry.cohort.columns import map_columns
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.record import parse_read_options
from dicom_quarry.model import OutcomeStatus, Transport
from dicom_quarry.plurals import format_count, format_part
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.reporting.html.markup import Markup, element
from dicom_quarry.reporting.html.modalities import name_modalities
from dicom_quarry.reporting.html.report_data import ReportData
from dicom_quarry.reporting.html.report_sections import section
from dicom_quarry.version import __version__

#: Settings that are numbers, choices or truth values. All others may have the user's words.
_OF_JOB = (
    *("parallel", "max_studies", "allow_several_patients", "whole_patients", "accept_mismatch"),
    *("skip_bad_rows", "allow_wildcards", "long_identifiers", "hidden_rows", "min_instances", "diagnosis"),
    *("give_up_after", "keep_free", "room", "plan_age", "portable_names"),
)
_OF_ARCHIVE = (
    *("retrieve", "model", "window", "time_zone", "after_window", "parallel", "queries_per_second"),
    *("studies_per_hour", "megabytes_per_second", "max_queries_per_row", "result_cap", "lowest_level"),
    *("query_timeout", "silence", "settle", "tls", "merged_ids", "nearline_patience"),
)


#: The outcomes of the rows that are not complete, in the words of a paper.
_LOSSES = (
    (OutcomeStatus.INVALID_ROW, "could not be used"),
    (OutcomeStatus.EXCLUDED, "were excluded by a list"),
    (OutcomeStatus.NOT_FOUND, "had no matching study"),
    (OutcomeStatus.SEVERAL_PATIENTS, "matched several patients"),
    (OutcomeStatus.FILTERED, "were left out by the selection criteria"),
    (OutcomeStatus.PARTIAL, "were retrieved in part"),
    (OutcomeStatus.UNVERIFIED, "could not be verified"),
    (OutcomeStatus.NO_IMAGES, "had no images"),
    (OutcomeStatus.MISMATCH, "had images with other identifiers"),
    (OutcomeStatus.FAILED, "failed"),
    (OutcomeStatus.PENDING, "had not ended"),
)


def methods_section(data: ReportData) -> Markup:
    """Return the paragraph for the Methods of a paper."""
    return section(
        "methods",
        "Methods",
        element("p", "To paste into a paper or a protocol: one click selects it.", class_="quiet"),
        element("blockquote", methods_text(data), class_="paste"),
    )


def methods_text(data: ReportData) -> str:
    """Describe the extraction in the words of a paper."""
    view, statuses = data.view, data.view.rows_by_status
    archives = " and ".join(one.name for one in data.settings.archives)
    used = [name for load in view.activity.archives.values() for name in load.retrievals_by_transport]
    transports = " and ".join(Transport(one).label for one in dict.fromkeys(used)) or "no retrieval so far"
    keys = " and ".join(_keys(data)) or "the columns of the table"
    began, ended = data.local(view.started_at.timestamp()), data.local(view.activity.ended or 0)
    period = f"on {began:%d %B %Y}"
    if view.activity.ended and ended.date() != began.date():
        period = f"between {began:%d %B %Y} and {ended:%d %B %Y}"
    lost = [_describe_loss(statuses[status], words) for status, words in _LOSSES if statuses.get(status)]
    complete = statuses.get(OutcomeStatus.COMPLETE, 0)
    share = f" ({complete / view.rows:.1%})" if view.rows else ""
    protocol = f" under {data.settings.protocol}" if data.settings.protocol else ""
    sentences = (
        f"Imaging studies were retrieved from the archive {archives} {period}{protocol} with Quarry "
        f"{__version__} ({transports}).",
        f"The cohort table had {format_count(view.rows, 'row')}, which were matched by {keys}.",
        *_selection(data),
        f"In all, {format_count(view.studies_complete, 'complete study', 'complete studies')} with "
        f"{format_count(view.instances_stored, 'stored image')} ({format_size(view.size)}) resulted.",
        f"A row was counted as complete only if every instance that the archive listed for its studies was "
        f"stored with a SHA-256 checksum; this was so for {format_part(complete, view.rows, 'row')}{share}.",
        *([f"Of the others, {_join(lost)}."] if lost else []),
    )
    return " ".join(sentences)


def _describe_loss(rows: int, words: str) -> str:
    return f"{format_count(rows, 'row')} {words.replace('were ', 'was ') if rows == 1 else words}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _keys(data: ReportData) -> list[str]:
    """Return the DICOM keywords of the columns by which rows are searched for."""
    options = parse_read_options(data.settings)
    try:
        keys = map_columns(data.columns, options.mapping, options.ignored)
    except InputError:  # an earlier version accepted headers that are refused today
        return []
    return list(dict.fromkeys(keyword for _, keyword in keys))


def _selection(data: ReportData) -> Iterator[str]:
    settings = data.settings
    chosen = [_condition(data, one) for one in (*settings.where, *settings.series)]
    left_out = [_condition(data, one) for one in settings.series_not]
    if chosen:
        yield f"Only studies and series with {_join(chosen)} were selected."
    if left_out:
        yield f"Series with {_join(left_out)} were left out."
    if settings.min_instances:
        yield f"Series with fewer than {format_count(settings.min_instances, 'image')} were left out."


def _condition(data: ReportData, text: str) -> str:
    """Return a condition of the user: with its value if that is a modality, or if the page may name it."""
    keyword, _, value = text.partition("=")
    if data.identifiers:
        return text
    if keyword.strip() in ("Modality", "ModalitiesInStudy"):
        terms = name_modalities(value.replace(",", "\\"))
        if "other" not in terms:
            return f"{keyword.strip()} {terms.replace(' + ', ' or ')}"
    return f"a chosen {keyword.strip()}" if keyword.strip().isalnum() else "a chosen value"


def software_section(data: ReportData) -> Markup:
    """Return the version of the software and the settings that are numbers and choices."""
    version = (
        __version__
        if data.version in ("", __version__)
        else f"{__version__}; the job began with {data.version}"
    )
    facts = [("Software", f"Quarry {version}"), *_settings(data)]
    return section(
        "software",
        "Software and settings",
        element(
            "p",
            "Numbers and choices alone. Passwords, addresses of persons and conditions are left out.",
            class_="quiet",
        ),
        element(
            "dl",
            *(item for name, value in facts for item in (element("dt", name), element("dd", value))),
            class_="facts",
        ),
    )


def _settings(data: ReportData) -> Iterator[tuple[str, str]]:
    settings = data.settings
    yield "Receiver", str(settings.local)
    for name in _OF_JOB:
        value = getattr(settings, name)
        if value is not None:
            yield name.replace("_", "-"), _format(value)
    for archive in settings.archives:
        given = [(name, getattr(archive, name)) for name in _OF_ARCHIVE]
        yield (
            f"archive {archive.name}",
            ", ".join(
                f"{name.replace('_', '-')} {_format(value)}" for name, value in given if value is not None
            ),
        )


def _format(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,g}" if isinstance(value, float) else str(value)
