"""Where a job stands, in numbers: asked for often while it runs, so the questions are few and quick."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, case, func, not_, select

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

_HANDED = select(handovers.c.state, func.count()).group_by(handovers.c.state)


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


def count(connection: Connection) -> Counts:
    """Where the job stands, in a second or two with a million rows."""
    states = connection.execute(
        select(
            tasks.c.state,
            tasks.c.code,
            func.count(),
            func.sum(tasks.c.expected),
            func.sum(tasks.c.stored),
            func.sum(tasks.c.size),
            func.count(tasks.c.released_at),
        )
        .where(tasks.c.id.in_(select(request_tasks.c.task_id)))
        .group_by(tasks.c.state, tasks.c.code)
    ).all()
    done = [row for row in states if row.state == CONCLUDED]
    waiting = connection.scalar(select(func.count()).where(requests.c.state == WAITING)) or 0
    by_word = _rows_by_word(connection)
    return Counts(
        rows=sum(by_word.values()),
        rows_waiting=waiting,
        rows_by_word=by_word,
        studies=sum(row[2] for row in states),
        studies_done=sum(row[2] for row in done),
        studies_complete=sum(row[2] for row in done if CATALOGUE[row.code].word is Word.COMPLETE),
        instances_expected=sum(row[3] or 0 for row in states),
        instances_stored=sum(row[4] or 0 for row in states),
        size=sum(row[5] or 0 for row in states),
        studies_released=sum(row[6] for row in states),
        hand_overs={row.state: row[1] for row in connection.execute(_HANDED)},
    )


def _rows_by_word(connection: Connection) -> dict[Word, int]:
    """Rows counted by the worst of their tasks.

    Most rows of a large job are complete, or were not asked about yet: those are counted without looking at
    each. A row is one of few combinations of codes, so that SQL groups the others and the catalogue judges
    each combination once.
    """
    counted: Counter[Word] = Counter()
    unlinked = select(requests.c.state, func.coalesce(requests.c.code, "pending"), func.count())
    for state, code, count in connection.execute(unlinked.group_by(requests.c.state, requests.c.code)):
        # A row that was resolved is what its tasks are; should it have none, nothing is known of it.
        counted[CATALOGUE[code].word if state != RESOLVED else Word.PENDING] += count
    linked = connection.scalar(select(func.count(request_tasks.c.row.distinct()))) or 0
    counted[Word.PENDING] -= linked
    counted[Word.COMPLETE] += linked
    for codes, count in connection.execute(_not_complete()):
        word = worst(Outcome(CATALOGUE[one].word, one, "") for one in codes.split(",")).word
        counted[Word.COMPLETE] -= count
        counted[word] += count
    return {word: count for word, count in counted.items() if count}


def _not_complete() -> Any:
    """The codes of each row's tasks that are not complete, and how many rows have these."""
    complete = and_(tasks.c.state == CONCLUDED, tasks.c.code.in_(codes_of({Word.COMPLETE})))
    code = case((tasks.c.state == CONCLUDED, tasks.c.code), else_="pending")
    combination = (
        select(func.group_concat(code.distinct()).label("codes"))
        .select_from(tasks)
        .join(request_tasks, request_tasks.c.task_id == tasks.c.id)
        .where(not_(complete))
        .group_by(request_tasks.c.row)
        .subquery()
    )
    return select(combination.c.codes, func.count()).group_by(combination.c.codes)
