"""Questions to archives with a note of each: when it was put, how long it took, and how it was answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from dicom_quarry.errors import ConnectionLost, QueryFailed
from dicom_quarry.extraction.job_context import ArchiveClient
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.query_log import QueryLogEntry, log_query
from dicom_quarry.model import Level

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoggedQueries:
    """Those about one row, or about one task."""

    ledger: Ledger
    row: int | None = None
    task_id: int | None = None

    def run(
        self,
        client: ArchiveClient,
        query: Callable[[], T],
        summarize: Callable[[T], tuple[int, str]],
        *,
        purpose: str,
        level: Level,
        keys: Iterable[str] = (),
    ) -> T:
        """Put a question as the archive's gate has it. ``sized``: how many answers, and why not all.

        Raises what the gate raises.
        """
        before, started = client.throttle.query_count, time.time()

        def run_timed() -> T:
            nonlocal started
            started = time.time()
            return query()

        def log_result(answers: int | None, why: str, status: int | None = None) -> None:
            query_count = max(1, client.throttle.query_count - before)
            duration = time.time() - started
            profile = client.profile
            name, model = profile.name, profile.model if profile.address else "qido"
            entry = QueryLogEntry(
                name,
                model,
                purpose,
                level,
                " ".join(keys),
                started,
                duration,
                query_count,
                answers,
                status,
                why,
            )
            log_query(self.ledger.database, entry, row=self.row, task_id=self.task_id)

        try:
            answer = client.circuit_breaker.run_query(run_timed)
        except (QueryFailed, ConnectionLost) as error:
            log_result(None, str(error), error.status if isinstance(error, QueryFailed) else None)
            raise
        log_result(*summarize(answer))
        return answer
