"""Plan a cohort: query for every row, and retrieve nothing; a plan has no receiver."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.extraction.archive_client import ArchiveClient, open_clients
from dicom_quarry.extraction.internal_error_guard import RowGuard
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.query_thread import QueryThread, run_with_progress
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.planning import plan_cache

#: Rows that are queried before the thread waits until their results are durable.
_PAGE_SIZE = 200

#: Further attributes of every study for ``--detailed``; an archive may leave any of them empty.
DETAIL_ATTRIBUTES = (
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "AcquisitionDate",
)


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The end of a plan. ``problem``: what a person has to solve before the plan can continue."""

    folder: LocalPlace
    problem: str = ""


def make_plan(context: QueryContext, cohort_path: Path, *, detailed: bool) -> PlanResult:
    """Query for every row of a cohort, or continue with it. Rows that cannot be used get an outcome.

    Raises InputError, StartError and LedgerError.
    """
    context.report_limits()
    settings = context.settings
    cohort, rows = record.read_cohort(cohort_path, settings.model_copy(update={"skip_bad_rows": True}))
    context.observer.on_cohort_read(cohort.mapping, rows, cohort.notes)
    context.observer.on_columns_unused(cohort.unused)
    for choice in cohort.choices:
        context.observer.on_message(choice)
    now = datetime.now(UTC)
    plan_cache.delete_expired(now)
    digest = context.exclusions.digest
    with plan_cache.open_plan(cohort, settings, detailed=detailed, exclusion_digest=digest) as opened:
        folder, ledger, since = opened
        if since is not None:
            context.observer.on_message(plan_cache.reuse_message(since, now))
        return PlanResult(folder, _query_rows(context, folder, ledger))


def _query_rows(context: QueryContext, folder: LocalPlace, ledger: Ledger) -> str:
    """Query for the rows without a result; returns the problem that a person has to solve, empty if none."""
    with closing(LedgerReader(folder.ledger)) as reader:
        counts = reader.counts()
    if not counts.rows_waiting:
        return ""
    attributes = DETAIL_ATTRIBUTES if ledger.metadata().get("detailed") else ()
    with open_clients(context, has_delivered=True) as clients:
        resolver = Resolver(context, clients, ledger, attributes)
        thread = _PlanQueries(context, clients, ledger, resolver)
        try:
            run_with_progress(context, thread, "rows", counts.rows, counts.rows - counts.rows_waiting)
        except OperatorActionRequired as error:
            return str(error)
    return ""


class _PlanQueries(QueryThread):
    """Queries for one row after another on one association, until none is left."""

    def __init__(
        self,
        context: QueryContext,
        clients: Mapping[str, ArchiveClient],
        ledger: Ledger,
        resolver: Resolver,
    ) -> None:
        super().__init__("plan", clients, context.shutdown)
        self._ledger = ledger
        self._rows = RowGuard(resolver.resolve, ledger, context.status_board.report)

    def run_queries(self) -> None:
        """Query for the rows, page by page."""
        while self._query_page():
            pass

    def _query_page(self) -> bool:
        """Query for the next rows; return False if there are none.

        The next query starts while a result is being recorded. The page ends when all results are durable.
        """
        recorded: list[Future[int]] = []
        try:
            for request in self._ledger.waiting_requests(_PAGE_SIZE):
                self.shutdown.raise_if_requested()
                recorded.append(self._rows.resolve(request))
        finally:
            self.completed += sum(future.result() for future in recorded)
        return bool(recorded)
