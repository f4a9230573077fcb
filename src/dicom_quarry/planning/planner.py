"""A plan: every row of a cohort is asked about, and nothing is moved; there is no receiver."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.errors import Unusable
from dicom_quarry.extraction.archive_clients import open_sources
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.extraction.matching import Rules
from dicom_quarry.extraction.query_thread import Asker, Errand, watch
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.jobs import record
from dicom_quarry.jobs.folder import JobFolder, logging_to
from dicom_quarry.jobs.progress import Board
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Reader
from dicom_quarry.planning import plan_cache
from dicom_quarry.system.shutdown import Stop

#: Rows asked about before it is waited until their answers are durable.
_PAGE = 200

#: What ``--detailed`` asks of every study besides; archives may leave any of them empty.
DETAILS = (
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "AcquisitionDate",
)


@dataclass(frozen=True, slots=True)
class PlanEnd:
    """How a plan ended. ``problem``: what a person has to do before an archive can be asked on."""

    folder: JobFolder
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Desk:
    sources: Mapping[str, Source]
    ledger: Ledger
    board: Board


def make(errand: Errand, cohort_path: Path, *, detailed: bool) -> PlanEnd:
    """Ask about every row of a cohort, or go on with it. Rows that cannot be used are entered as such."""
    settings = errand.settings
    cohort, rows = record.read(cohort_path, settings.model_copy(update={"skip_bad_rows": True}))
    errand.listener.cohort(cohort.mapping, rows, cohort.notes)
    now = datetime.now(UTC)
    plan_cache.sweep(now)
    excluded = errand.exclusions.digest
    with plan_cache.opened(cohort, settings, detailed=detailed, excluded=excluded) as (folder, ledger, since):
        if since is not None:
            errand.listener.said(f"the answers of the plan of {plan_cache.spoken(since, now)} are used")
        with logging_to(folder.log):
            detailed = bool(ledger.facts().get("detailed"))
            problem = _ask(errand, folder, ledger, DETAILS if detailed else ())
    return PlanEnd(folder, problem)


def _ask(errand: Errand, folder: JobFolder, ledger: Ledger, attributes: tuple[str, ...]) -> str:
    reader = Reader(folder.ledger)
    try:
        counts = reader.counts()
    finally:
        reader.close()
    if not counts.rows_waiting:
        return ""
    settings = errand.settings
    with open_sources(settings, errand.guests, errand.stop, errand.board, served=True) as sources:
        rules = Rules(settings.allow_several_patients, settings.max_studies)
        desk = _Desk(sources, ledger, errand.board)
        wanted = record.series_filter(settings)
        resolver = Resolver(desk, rules, settings.diagnosis, attributes, wanted, errand.exclusions)
        questions = _Questions(desk, resolver, errand.stop)
        try:
            watch(errand, questions, "rows", counts.rows, counts.rows - counts.rows_waiting)
        except Unusable as error:
            return str(error)
    return ""


class _Questions(Asker):
    """Asks about row after row on one association, until none waits."""

    def __init__(self, desk: _Desk, resolver: Resolver, stop: Stop) -> None:
        super().__init__("plan", desk.sources, stop)
        self._ledger = desk.ledger
        self._resolver = resolver

    def ask(self) -> None:
        """Ask."""
        while self._page():
            pass

    def _page(self) -> bool:
        """Ask about the next rows; False if there are none.

        The archive does not wait for our disk: answers are entered while the next question is put, and
        waited for before the ledger is asked again which rows wait.
        """
        entered: list[Future[int]] = []
        try:
            for request in self._ledger.waiting_requests(_PAGE):
                self.stopping.check()
                entered.append(self._resolver.resolve(request))
        finally:
            self.settled += sum(future.result() for future in entered)
        return bool(entered)
