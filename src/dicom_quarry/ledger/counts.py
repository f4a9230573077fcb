"""Where a job stands, in numbers: asked for often while it runs, so the questions are few and quick."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import and_, case, func, literal, not_, select

from dicom_quarry.ledger.compiled_statements import Prepared
from dicom_quarry.ledger.schema import (
    CONCLUDED,
    RESOLVED,
    TO_DO,
    WAITING,
    handovers,
    request_tasks,
    requests,
    tasks,
)
from dicom_quarry.model import Outcome, Word
from dicom_quarry.outcomes import CATALOGUE, codes_of, worst

_HANDED = Prepared(select(handovers.c.state, func.count().label("number")).group_by(handovers.c.state))

_STUDIES = Prepared(
    select(
        tasks.c.state,
        tasks.c.code,
        func.count().label("number"),
        func.sum(tasks.c.expected).label("expected"),
        func.sum(tasks.c.stored).label("stored"),
        func.sum(tasks.c.size).label("size"),
        func.count(tasks.c.released_at).label("released"),
    )
    .where(tasks.c.id.in_(select(request_tasks.c.task_id)))
    .group_by(tasks.c.state, tasks.c.code)
)

_WAITING = Prepared(select(func.count().label("rows")).where(requests.c.state == WAITING))

_code = func.coalesce(requests.c.code, "pending")
_UNLINKED = Prepared(
    select(requests.c.state, _code.label("code"), func.count().label("rows")).group_by(
        requests.c.state, requests.c.code
    )
)

_LINKED = Prepared(select(func.count(request_tasks.c.row.distinct()).label("rows")))

_COMPLETE = [literal(code) for code in sorted(codes_of({Word.COMPLETE}))]
_combination = (
    select(
        func.group_concat(case((tasks.c.state == CONCLUDED, tasks.c.code), else_="pending").distinct()).label(
            "codes"
        )
    )
    .select_from(tasks)
    .join(request_tasks, request_tasks.c.task_id == tasks.c.id)
    .where(not_(and_(tasks.c.state == CONCLUDED, tasks.c.code.in_(_COMPLETE))))
    .group_by(request_tasks.c.row)
    .subquery()
)

#: The codes of each row's tasks that are not complete, and how many rows have these.
_NOT_COMPLETE = Prepared(
    select(_combination.c.codes, func.count().label("rows")).group_by(_combination.c.codes)
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Where a job stands. ``rows_waiting`` are rows that the archive was not asked about yet.

    ``hand_overs`` counts complete studies by how far their command has come, where one is run for them.
    """

    rows: int
    rows_waiting: int
    rows_by_word: dict[Word, int]
    studies: int
    studies_done: int
    studies_complete: int
    instances_expected: int
    instances_stored: int
    size: int
    studies_released: int = 0
    hand_overs: dict[str, int] = field(default_factory=dict)

    @property
    def fetched(self) -> bool:
        """True when nothing is left to ask an archive for."""
        return not self.rows_by_word.get(Word.PENDING)

    @property
    def finished(self) -> bool:
        """True when nothing is left to do."""
        return self.fetched and not self.hand_overs.get(TO_DO)


def count(connection: sqlite3.Connection) -> Counts:
    """Where the job stands, in a second or two with a million rows."""
    states = _STUDIES.rows(connection)
    done = [row for row in states if row.state == CONCLUDED]
    by_word = _rows_by_word(connection)
    return Counts(
        rows=sum(by_word.values()),
        rows_waiting=_WAITING.rows(connection)[0].rows,
        rows_by_word=by_word,
        studies=sum(row.number for row in states),
        studies_done=sum(row.number for row in done),
        studies_complete=sum(row.number for row in done if CATALOGUE[row.code].word is Word.COMPLETE),
        instances_expected=sum(row.expected or 0 for row in states),
        instances_stored=sum(row.stored or 0 for row in states),
        size=sum(row.size or 0 for row in states),
        studies_released=sum(row.released for row in states),
        hand_overs={row.state: row.number for row in _HANDED.rows(connection)},
    )


def _rows_by_word(connection: sqlite3.Connection) -> dict[Word, int]:
    """Rows counted by the worst of their tasks.

    Most rows of a large job are complete, or were not asked about yet: those are counted without looking at
    each. A row is one of few combinations of codes, so that SQL groups the others and the catalogue judges
    each combination once.
    """
    counted: Counter[Word] = Counter()
    for state, code, rows in _UNLINKED.rows(connection):
        # A row that was resolved is what its tasks are; should it have none, nothing is known of it.
        counted[CATALOGUE[code].word if state != RESOLVED else Word.PENDING] += rows
    linked = _LINKED.rows(connection)[0].rows
    counted[Word.PENDING] -= linked
    counted[Word.COMPLETE] += linked
    for codes, rows in _NOT_COMPLETE.rows(connection):
        word = worst(Outcome(CATALOGUE[one].word, one, "") for one in codes.split(",")).word
        counted[Word.COMPLETE] -= rows
        counted[word] += rows
    return {word: number for word, number in counted.items() if number}
