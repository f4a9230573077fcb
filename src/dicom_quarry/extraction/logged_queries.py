"""Questions to archives with a note of each: when it was put, how long it took, and how it was answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from dicom_quarry.errors import Lost, QueryFailed
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.query_log import Query, note_query
from dicom_quarry.model import Level

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Questions:
    """Those about one row, or about one task."""

    ledger: Ledger
    row: int | None = None
    task_id: int | None = None

    def ask(
        self,
        source: Source,
        question: Callable[[], T],
        sized: Callable[[T], tuple[int, str]],
        *,
        purpose: str,
        level: Level,
        keys: Iterable[str] = (),
    ) -> T:
        """Put a question as the archive's gate has it. ``sized``: how many answers, and why not all.

        Raises what the gate raises.
        """
        before, asked = source.guest.queries, time.time()

        def timed() -> T:
            nonlocal asked
            asked = time.time()
            return question()

        def note(answers: int | None, why: str, status: int | None = None) -> None:
            put = max(1, source.guest.queries - before)
            took = time.time() - asked
            profile = source.profile
            name, model = profile.name, profile.model if profile.address else "qido"
            told = Query(name, model, purpose, level, " ".join(keys), asked, took, put, answers, status, why)
            note_query(self.ledger.database, told, row=self.row, task_id=self.task_id)

        try:
            answer = source.gate.query(timed)
        except (QueryFailed, Lost) as error:
            note(None, str(error), error.status if isinstance(error, QueryFailed) else None)
            raise
        note(*sized(answer))
        return answer
