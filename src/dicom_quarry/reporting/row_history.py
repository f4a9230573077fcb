"""What became of a row and why, in words and in the order of time; and the same for scripts.

Where others may read it nothing names a patient: keys without their values, files without their names, the
archive's statuses without what it said besides. UIDs stay, to ask with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from dicom_quarry.archive.dimse.status import of_find, of_get, of_move
from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.ledger.history import NAMED, Keys, RowHistory, StudyHistory
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.ledger.query_log import Query
from dicom_quarry.model import Outcome, Word
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.reporting.formatting import counted, human_size

_PURPOSES = {
    "row": "asked {} for the row as it stands",
    "rewritten": "asked {} for the row as rewritten",
    "part": "asked {} for a part, by dates, as the answer before was cut short",
    "near": "asked {} for what is near, as nothing matched",
    "series": "asked {} for the series, to choose from",
    "listing": "asked {} what it holds of the study",
}
_MODELS = {"study": "study root", "patient": "patient root", "qido": "QIDO-RS"}
_ROADS = {"move": "C-MOVE", "get": "C-GET", "wado": "WADO-RS"}

#: A moment, and what happened then.
_Event = tuple[float, str]


def explain_lines(
    rows: Sequence[RowHistory], studies: Sequence[StudyHistory], *, identified: bool
) -> list[str]:
    """For people; ``identified`` with everything that may name a patient, as on a terminal."""
    lines: list[str] = []
    for row in rows:
        lines += [*_row(row, identified), ""]
    happened = [event for row in rows for event in _asked(row.queries, "", identified)]
    for number, study in enumerate(studies, 1):
        name = f"study {number}: " if len(studies) > 1 else ""
        lines += [*_study(study, name, identified), ""]
        happened += _events(study, name, identified)
    lines.append("what happened, in UTC:")
    lines += [f"  {_instant(at)}  {text}" for at, text in sorted(happened, key=lambda event: event[0])]
    if not any(row.queries for row in rows):
        asked = any(row.view.outcome.word not in _UNASKED or row.view.studies_found for row in rows)
        lines.append(
            "  an older Quarry asked about the row, and kept no record" if asked else "  nothing was asked"
        )
    for row in rows:
        lines += ["", *_outcome(row.view.outcome, f"row {row.view.row}", identified)]
    for number, study in enumerate(studies, 1) if len(studies) > 1 or not rows else ():
        lines += ["", *_outcome(study.view.outcome, f"study {number}", identified)]
    return lines


#: Rows that no archive is asked about.
_UNASKED = frozenset({Word.PENDING, Word.INVALID_ROW, Word.EXCLUDED})


def _row(row: RowHistory, identified: bool) -> Iterator[str]:
    yield f"row {row.view.row}, line {row.view.line} of the table"
    if row.view.same_as_row is not None:
        yield f"  it asks for the same as row {row.view.same_as_row}"
    if row.keys:
        yield f"  asks for {_spoken(row.keys, identified)}"
    for keys in row.alternatives:
        yield f"  or, where that finds nothing, for {_spoken(keys, identified)}"
    if row.note and identified:
        yield f"  {visible(row.note, limit=300)}"
    if not row.view.studies_found:
        yield "  no study was found for it"


def _spoken(keys: Keys, identified: bool) -> str:
    return ", ".join(f"{name} {visible(value)}" if identified else name for name, value in keys)


def _study(study: StudyHistory, name: str, identified: bool) -> Iterator[str]:
    view = study.view
    yield f"{name or 'study '}{visible(view.study.study_uid)} of {view.archive}"
    if identified:
        told = [view.study.patient_id, view.study.accession, view.study.study_date, view.study.description]
        yield f"  the archive describes it as {', '.join(visible(one) for one in told if one)}"
    yield f"  rows {' '.join(map(str, view.rows))}" if len(view.rows) > 1 else f"  row {_one(view.rows)}"
    listed = "an unknown number" if view.expected is None else f"{view.expected:,}"
    yield f"  {counted(view.stored, 'instance')} stored, {human_size(view.size)}; {listed} listed"
    if identified and view.folder:
        yield f"  in {visible(view.folder, limit=300)}"
    if study.lacking:
        yield f"  missing: {counted(study.lacking, 'instance')}"
        yield from (f"    {visible(ref.sop_uid)}" for ref in study.missing)
        if study.lacking > NAMED:
            yield f"    … and {study.lacking - NAMED:,} more: missing.csv has all of them"
    if study.apart:
        yield f"  kept apart, as the identity in them differs: {counted(len(study.apart), 'file')}" + (
            " or more" if len(study.apart) == NAMED else ""
        )
        yield from (f"    {visible(path, limit=300)}" for path in study.apart if identified)


def _one(rows: Iterable[int]) -> str:
    return " ".join(map(str, rows)) or "none any more"


def _events(study: StudyHistory, name: str, identified: bool) -> Iterator[_Event]:
    yield from _asked(study.queries, name, identified)
    for number, attempt in study.rounds:
        yield attempt.started, f"{name}round {number}, {_attempt(attempt, identified)}"
    for at in study.retried:
        yield at, f"{name}taken up again"
    for one in study.postponed:
        yield one.at, f"{name}put off until {_instant(one.until)}: {one.why}"
    if study.proved_at is not None:
        yield study.proved_at, f"{name}proved: every instance that the archive lists is on the disk"


def _asked(queries: Iterable[Query], name: str, identified: bool) -> Iterator[_Event]:
    for one in queries:
        keys = f" by {', '.join(one.keys.split())}" if one.keys else ""
        put = f", {one.questions:,} queries" if one.questions > 1 else ""
        yield (
            one.asked,
            f"{name}{_PURPOSES[one.purpose].format(one.archive)}{keys} "
            f"({one.level} level, {_MODELS[one.model]}{put}): {_answered(one, identified)}, {one.took:.2f} s",
        )


def _answered(one: Query, identified: bool) -> str:
    said = f" ({visible(one.why, limit=300)})" if identified and one.why else ""
    if one.answers is None:
        return f"it failed{_failure(one)}{said}"
    whole = "cut short" if one.why else "complete"
    return f"{counted(one.answers, 'answer')}, {whole}{said}"


def _failure(one: Query) -> str:
    if one.status is None:
        return ""
    if one.model == "qido":
        return f", HTTP {one.status}"
    return f", {_code(one.status)}: {of_find(one.status).sentence}"


def _attempt(one: Attempt, identified: bool) -> str:
    asked = f"{counted(one.asked, 'instance')} asked for, {one.gained:,} came"
    text = f"{_ROADS.get(one.road, one.road)} at {one.level} level: {asked}, {one.ended - one.started:.2f} s"
    if one.status is not None and one.road != "wado":
        meaning = of_get(one.status) if one.road == "get" else of_move(one.status)
        text += f", {_code(one.status)}: {meaning.sentence}"
    else:
        text += f", {one.verdict}" if one.status is None else f", HTTP {one.status}"
    return f"{text} ({visible(one.comment, limit=300)})" if identified and one.comment else text


def _code(number: int) -> str:
    return f"status {number:04X}H"


def _outcome(outcome: Outcome, what: str, identified: bool) -> Iterator[str]:
    yield f"{what}: {outcome.word.replace('_', ' ')} ({outcome.code})"
    yield f"  {visible(outcome.reason, limit=300) if identified else CATALOGUE[outcome.code].title}"
    if outcome.next_step:
        yield f"  what to do: {outcome.next_step}"


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def explain_json(rows: Sequence[RowHistory], studies: Sequence[StudyHistory]) -> str:
    """The same for scripts, without identifiers; times in seconds since 1970, UTC."""
    told = {"rows": [_row_facts(row) for row in rows], "studies": [_study_facts(one) for one in studies]}
    return json.dumps(told, indent=2)


def _row_facts(row: RowHistory) -> dict[str, Any]:
    return {
        "row": row.view.row,
        "line": row.view.line,
        "same_as_row": row.view.same_as_row,
        "keys": [name for name, _ in row.keys],
        "ways": 1 + len(row.alternatives),
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
        "retried": list(study.retried),
        "postponed": [{"at": one.at, "until": one.until, "why": one.why} for one in study.postponed],
        "missing": study.lacking,
        "missing_sop_uids": [ref.sop_uid for ref in study.missing],
        "kept_apart": len(study.apart),
        "proved_at": study.proved_at,
        **_outcome_facts(view.outcome),
    }


def _query_facts(one: Query) -> dict[str, Any]:
    facts = {name: getattr(one, name) for name in Query.__slots__ if name != "why"}
    return {**facts, "keys": one.keys.split(), "complete": one.answers is not None and not one.why}


def _attempt_facts(one: Attempt) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Attempt.__slots__ if name != "comment"}


def _outcome_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "outcome": outcome.word,
        "code": outcome.code,
        "reason": CATALOGUE[outcome.code].title,
        "next_step": outcome.next_step,
    }
