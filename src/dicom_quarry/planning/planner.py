"""A plan: every row of a cohort is asked about, and nothing is moved; there is no receiver."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.extraction.archive_clients import open_clients
from dicom_quarry.extraction.job_context import ArchiveClient
from dicom_quarry.extraction.matching import ResolveRules
from dicom_quarry.extraction.query_thread import QueryContext, QueryThread, run_with_progress
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.jobs import record
from dicom_quarry.jobs.folder import JobFolder, logging_to
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.planning import plan_cache
from dicom_quarry.system.shutdown import Shutdown

#: Rows asked about before it is waited until their answers are durable.
_PAGE_SIZE = 200

#: What ``--detailed`` asks of every study besides; archives may leave any of them empty.
DETAIL_ATTRIBUTES = (
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "AcquisitionDate",
)


@dataclass(frozen=True, slots=True)
class PlanResult:
    """How a plan ended. ``problem``: what a person has to do before an archive can be asked on."""

    folder: JobFolder
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _PlanContext:
    clients: Mapping[str, ArchiveClient]
    ledger: Ledger
    status_board: StatusBoard


def make_plan(context: QueryContext, cohort_path: Path, *, detailed: bool) -> PlanResult:
    """Ask about every row of a cohort, or go on with it. Rows that cannot be used are entered as such."""
    settings = context.settings
    cohort, rows = record.read_cohort(cohort_path, settings.model_copy(update={"skip_bad_rows": True}))
    context.observer.on_cohort_read(cohort.mapping, rows, cohort.notes)
    now = datetime.now(UTC)
    plan_cache.delete_expired(now)
    exclusion_digest = context.exclusions.digest
    with plan_cache.open_plan(cohort, settings, detailed=detailed, exclusion_digest=exclusion_digest) as (
        folder,
        ledger,
        since,
    ):
        if since is not None:
            context.observer.on_message(
                f"the answers of the plan of {plan_cache.format_plan_time(since, now)} are used"
            )
        with logging_to(folder.log):
            detailed = bool(ledger.metadata().get("detailed"))
            problem = _query_rows(context, folder, ledger, DETAIL_ATTRIBUTES if detailed else ())
    return PlanResult(folder, problem)


def _query_rows(context: QueryContext, folder: JobFolder, ledger: Ledger, attributes: tuple[str, ...]) -> str:
    reader = LedgerReader(folder.ledger)
    try:
        counts = reader.counts()
    finally:
        reader.close()
    if not counts.rows_waiting:
        return ""
    settings = context.settings
    with open_clients(
        settings, context.throttles, context.shutdown, context.status_board, has_served=True
    ) as clients:
        rules = ResolveRules(settings.allow_several_patients, settings.max_studies)
        plan_context = _PlanContext(clients, ledger, context.status_board)
        series_filter = record.parse_series_filter(settings)
        resolver = Resolver(
            plan_context, rules, settings.diagnosis, attributes, series_filter, context.exclusions
        )
        thread = _PlanQueries(plan_context, resolver, context.shutdown)
        try:
            run_with_progress(context, thread, "rows", counts.rows, counts.rows - counts.rows_waiting)
        except OperatorActionRequired as error:
            return str(error)
    return ""


class _PlanQueries(QueryThread):
    """Asks about row after row on one association, until none waits."""

    def __init__(self, context: _PlanContext, resolver: Resolver, shutdown: Shutdown) -> None:
        super().__init__("plan", context.clients, shutdown)
        self._ledger = context.ledger
        self._resolver = resolver

    def run_queries(self) -> None:
        """Ask."""
        while self._query_page():
            pass

    def _query_page(self) -> bool:
        """Ask about the next rows; False if there are none.

        The archive does not wait for our disk: answers are entered while the next question is put, and
        waited for before the ledger is asked again which rows wait.
        """
        recorded: list[Future[int]] = []
        try:
            for request in self._ledger.waiting_requests(_PAGE_SIZE):
                self.shutdown.raise_if_requested()
                recorded.append(self._resolver.resolve(request))
        finally:
            self.completed += sum(future.result() for future in recorded)
        return bool(recorded)
