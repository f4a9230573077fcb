"""The history of a row for ``quarry explain``, as text in order of time, and as JSON for scripts.

Output that others may read contains nothing that names a patient: keys without values, no file names, and
statuses without the archive's comments. UIDs are included, so that the PACS team can look up a study.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dicom_quarry.archive.dimse.status import interpret_find, interpret_get, interpret_move
from dicom_quarry.ledger.history import MAX_NAMED, Keys, RowHistory, StudyHistory
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.ledger.query_log import QueryLogEntry
from dicom_quarry.model import Outcome, OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.system.text_safety import escape_text

_PURPOSES = {
    "row": "queried {} for the row",
    "rewritten": "queried {} for the row with rewritten values",
    "part": "queried {} for a part of the studies, because the answer to the row was cut short",
    "count": "queried {} for its own number of the patient's studies, to compare the parts with it",
    "unfiltered": "queried {} without the conditions of --where, because no study matched",
    "near": "queried {} for similar studies, because no study matched",
    "series": "queried {} for the series of the study, to select from them",
    "listing": "queried {} for the series and instances of the study",
}
_MODELS = {"study": "study root", "patient": "patient root", "qido": "QIDO-RS"}
_TRANSPORTS = {"move": "C-MOVE", "get": "C-GET", "wado": "WADO-RS"}


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Something that happened ``at`` a POSIX time, and took ``seconds``.

    ``kind`` is query, retrieval, retry, pause or proof. ``is_failure``: the archive or the connection failed.
    """

    at: float
    kind: str
    text: str
    seconds: float = 0.0
    is_failure: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """The history of rows and studies in words: what they are, what happened in order of time, the end."""

    subjects: tuple[tuple[str, ...], ...]
    events: tuple[HistoryEvent, ...]
    remark: str
    outcomes: tuple[tuple[str, ...], ...]


def explain(
    rows: Sequence[RowHistory], studies: Sequence[StudyHistory], *, with_identifiers: bool
) -> Explanation:
    """Return the history in words; only ``with_identifiers`` may they name a patient."""
    subjects = [tuple(_row_lines(row, with_identifiers)) for row in rows]
    events = [event for row in rows for event in _query_events(row.queries, "", with_identifiers)]
    for number, study in enumerate(studies, 1):
        name = f"study {number}: " if len(studies) > 1 else ""
        subjects.append(tuple(_study_lines(study, name, with_identifiers)))
        events += _study_events(study, name, with_identifiers)
    outcomes = [
        tuple(_outcome_lines(row.view.outcome, f"row {row.view.row}", with_identifiers)) for row in rows
    ]
    for number, study in enumerate(studies, 1) if len(studies) > 1 or not rows else ():
        outcomes.append(tuple(_outcome_lines(study.view.outcome, f"study {number}", with_identifiers)))
    in_order = sorted(events, key=lambda event: event.at)
    return Explanation(tuple(subjects), tuple(in_order), _remark_on_queries(rows), tuple(outcomes))


def _remark_on_queries(rows: Sequence[RowHistory]) -> str:
    if any(row.queries for row in rows):
        return ""
    was_queried = any(row.view.outcome.status not in _NEVER_QUERIED or row.view.studies_found for row in rows)
    if was_queried:
        return "no record of the queries: an older version of Quarry made them"
    return "no archive was queried"


def explain_lines(
    rows: Sequence[RowHistory], studies: Sequence[StudyHistory], *, with_identifiers: bool
) -> list[str]:
    """Return the history as text lines; only ``with_identifiers`` may they name a patient."""
    explained = explain(rows, studies, with_identifiers=with_identifiers)
    lines = [line for subject in explained.subjects for line in (*subject, "")]
    lines.append("what happened, in UTC:")
    lines += [f"  {_format_epoch(event.at)}  {event.text}" for event in explained.events]
    lines += [f"  {explained.remark}"] if explained.remark else []
    return [*lines, *(line for outcome in explained.outcomes for line in ("", *outcome))]


#: The statuses of rows for which no archive is queried.
_NEVER_QUERIED = frozenset({OutcomeStatus.PENDING, OutcomeStatus.INVALID_ROW, OutcomeStatus.EXCLUDED})


def _row_lines(row: RowHistory, with_identifiers: bool) -> Iterator[str]:
    yield f"row {row.view.row}, line {row.view.line} of the table"
    if row.view.same_as_row is not None:
        yield f"  same values as row {row.view.same_as_row}"
    if row.keys:
        yield f"  searches for {_format_keys(row.keys, with_identifiers)}"
    for keys in row.alternatives:
        yield f"  if nothing matches, searches for {_format_keys(keys, with_identifiers)}"
    if row.note and with_identifiers:
        yield f"  {escape_text(row.note, limit=300)}"
    if not row.view.studies_found:
        yield "  no study was found"


def _format_keys(keys: Keys, with_identifiers: bool) -> str:
    return ", ".join(f"{name} {escape_text(value)}" if with_identifiers else name for name, value in keys)


def _study_lines(study: StudyHistory, name: str, with_identifiers: bool) -> Iterator[str]:
    view = study.view
    yield f"{name or 'study '}{escape_text(view.study.study_uid)} of {escape_text(view.archive)}"
    if with_identifiers:
        details = [view.study.patient_id, view.study.accession, view.study.study_date, view.study.description]
        yield f"  the archive describes it as {', '.join(escape_text(one) for one in details if one)}"
    yield (
        f"  rows {' '.join(map(str, view.rows))}"
        if len(view.rows) > 1
        else f"  row {_row_numbers(view.rows)}"
    )
    listed = "an unknown number" if view.expected is None else f"{view.expected:,}"
    yield f"  {format_count(view.stored, 'instance')} stored, {format_size(view.size)}; {listed} listed"
    if with_identifiers and view.folder:
        yield f"  in {escape_text(view.folder, limit=300)}"
    if study.missing_count:
        yield f"  missing: {format_count(study.missing_count, 'instance')}"
        for ref, reason in study.missing:
            yield f"    {escape_text(ref.sop_uid)}" + (
                f": {escape_text(reason, limit=300)}" if reason else ""
            )
        if study.missing_count > MAX_NAMED:
            yield f"    … and {study.missing_count - MAX_NAMED:,} more (missing.csv lists all of them)"
    if study.mismatch_paths:
        files = format_count(len(study.mismatch_paths), "file")
        yield (
            f"  in the folder mismatch, because of other identifiers: {files}"
            + (" or more" if len(study.mismatch_paths) == MAX_NAMED else "")
        )
        yield from (
            f"    {escape_text(path, limit=300)}" for path in study.mismatch_paths if with_identifiers
        )


def _row_numbers(rows: Iterable[int]) -> str:
    return " ".join(map(str, rows)) or "not in the table any more"


def _study_events(study: StudyHistory, name: str, with_identifiers: bool) -> Iterator[HistoryEvent]:
    yield from _query_events(study.queries, name, with_identifiers)
    has_received = any(attempt.newly_stored for _, attempt in study.rounds)
    for number, attempt in study.rounds:
        text = _describe_attempt(attempt, with_identifiers, has_received=has_received)
        yield HistoryEvent(
            attempt.started,
            "retrieval",
            f"{name}round {number}, {text}",
            attempt.ended - attempt.started,
            is_failure=not attempt.newly_stored and attempt.requested > 0,
        )
    for at in study.retried_at:
        yield HistoryEvent(at, "retry", f"{name}tried again")
    for one in study.postponements:
        text = f"{name}postponed until {_format_epoch(one.until)}: {one.why}"
        yield HistoryEvent(one.at, "pause", text, one.until - one.at)
    if study.proved_at is not None:
        text = f"{name}proved complete: every instance that the archive lists is stored"
        yield HistoryEvent(study.proved_at, "proof", text)


def _query_events(
    queries: Iterable[QueryLogEntry], name: str, with_identifiers: bool
) -> Iterator[HistoryEvent]:
    for one in queries:
        keys = f" by {', '.join(one.keys.split())}" if one.keys else ""
        query_count = f", {one.request_count:,} queries" if one.request_count > 1 else ""
        result = _describe_result(one, with_identifiers)
        text = (
            f"{name}{_PURPOSES[one.purpose].format(one.archive)}{keys} "
            f"({one.level} level, {_MODELS[one.model]}{query_count}): {result}, {one.duration:.2f} s"
        )
        yield HistoryEvent(one.started, "query", text, one.duration, is_failure=one.result_count is None)


def _describe_result(one: QueryLogEntry, with_identifiers: bool) -> str:
    reason = f" ({escape_text(one.why, limit=300)})" if with_identifiers and one.why else ""
    if one.result_count is None:
        return f"failed{_describe_failure(one)}{reason}"
    complete = "incomplete" if one.why else "complete"
    return f"{format_count(one.result_count, 'answer')}, {complete}{reason}"


def _describe_failure(one: QueryLogEntry) -> str:
    if one.status is None:
        return ""
    if one.model == "qido":
        return f", HTTP {one.status}"
    return f", {_format_status(one.status)}: {interpret_find(one.status).sentence}"


def _describe_attempt(one: Attempt, with_identifiers: bool, *, has_received: bool) -> str:
    transport = _TRANSPORTS.get(one.transport, one.transport)
    requested = f"{format_count(one.requested, 'instance')} requested, {one.newly_stored:,} stored"
    text = f"{transport} at {one.level} level: {requested}, {one.ended - one.started:.2f} s"
    if one.status is not None and one.transport != "wado":
        interpret = interpret_get if one.transport == "get" else interpret_move
        meaning = interpret(one.status, has_received=has_received)
        text += f", {_format_status(one.status)}: {meaning.sentence}"
    else:
        text += f", {one.verdict}" if one.status is None else f", HTTP {one.status}"
    return f"{text} ({escape_text(one.comment, limit=300)})" if with_identifiers and one.comment else text


def _format_status(number: int) -> str:
    return f"status {number:04X}H"


def _outcome_lines(outcome: Outcome, what: str, with_identifiers: bool) -> Iterator[str]:
    yield f"{what}: {outcome.status.replace('_', ' ')} ({outcome.code})"
    yield f"  {escape_text(outcome.reason, limit=300) if with_identifiers else CATALOGUE[outcome.code].title}"
    if outcome.next_step:
        yield f"  what to do: {outcome.next_step}"


def _format_epoch(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def explain_json(rows: Sequence[RowHistory], studies: Sequence[StudyHistory]) -> str:
    """Return the history as JSON, without identifiers; times are in seconds since 1970, UTC."""
    document = {"rows": [_row_facts(row) for row in rows], "studies": [_study_facts(one) for one in studies]}
    return json.dumps(document, indent=2)


def _row_facts(row: RowHistory) -> dict[str, Any]:
    return {
        "row": row.view.row,
        "line": row.view.line,
        "same_as_row": row.view.same_as_row,
        "keys": [name for name, _ in row.keys],
        "key_sets": 1 + len(row.alternatives),
        "queries": [_query_facts(one) for one in row.queries],
        "studies": list(row.view.study_uids),
        **_outcome_facts(row.view.outcome),
    }


def _study_facts(study: StudyHistory) -> dict[str, Any]:
    view = study.view
    return {
        "study_uid": view.study.study_uid,
        "archive": view.archive,
        "rows": list(view.rows),
        "expected": view.expected,
        "stored": view.stored,
        "bytes": view.size,
        "listings": [_query_facts(one) for one in study.queries],
        "retrievals": [{"round": number, **_attempt_facts(one)} for number, one in study.rounds],
        "retried": list(study.retried_at),
        "postponed": [{"at": one.at, "until": one.until, "why": one.why} for one in study.postponements],
        "missing": study.missing_count,
        "missing_sop_uids": [ref.sop_uid for ref, _ in study.missing],
        "mismatched_files": len(study.mismatch_paths),
        "proved_at": study.proved_at,
        **_outcome_facts(view.outcome),
    }


def _query_facts(one: QueryLogEntry) -> dict[str, Any]:
    facts = {name: getattr(one, name) for name in QueryLogEntry.__slots__ if name != "why"}
    return {**facts, "keys": one.keys.split(), "complete": one.result_count is not None and not one.why}


def _attempt_facts(one: Attempt) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Attempt.__slots__ if name != "comment"}


def _outcome_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "outcome": outcome.status,
        "code": outcome.code,
        "reason": CATALOGUE[outcome.code].title,
        "next_step": outcome.next_step,
    }
