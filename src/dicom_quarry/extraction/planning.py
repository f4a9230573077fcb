"""A plan: every row of a cohort is asked about, and nothing is moved; there is no receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicom_quarry.cohort import NOBODY, Exclusions
from dicom_quarry.config import Settings
from dicom_quarry.errors import Unusable
from dicom_quarry.extraction import job, plans
from dicom_quarry.extraction.folder import JobFolder, logging_to
from dicom_quarry.extraction.guest import Guest
from dicom_quarry.extraction.listener import Listener
from dicom_quarry.extraction.progress import Asking, Board
from dicom_quarry.extraction.resolve import Rules
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.sources import open_sources
from dicom_quarry.extraction.stop import Stop, Stopped
from dicom_quarry.extraction.tools import Source
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reading import Reader

#: Rows asked about before it is waited until their answers are durable.
_PAGE = 200

#: Seconds between two looks at a running plan.
_TICK = 0.25

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
class Errand:
    """What a plan is made with: the settings, manners and ears of a run."""

    settings: Settings
    guests: Mapping[str, Guest]
    stop: Stop
    board: Board
    listener: Listener
    exclusions: Exclusions = NOBODY


@dataclass(frozen=True, slots=True)
class _Desk:
    sources: Mapping[str, Source]
    ledger: Ledger
    board: Board


def make(errand: Errand, cohort_path: Path, *, detailed: bool) -> PlanEnd:
    """Ask about every row of a cohort, or go on with it. Rows that cannot be used are entered as such."""
    settings = errand.settings
    cohort, rows = job.read(cohort_path, settings.model_copy(update={"skip_bad_rows": True}))
    errand.listener.cohort(cohort.mapping, rows, cohort.notes)
    now = datetime.now(UTC)
    plans.sweep(now)
    excluded = errand.exclusions.digest
    with plans.opened(cohort, settings, detailed=detailed, excluded=excluded) as (folder, ledger, since):
        if since is not None:
            errand.listener.said(f"the answers of the plan of {plans.spoken(since, now)} are used")
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
        wanted = job.series_filter(settings)
        resolver = Resolver(desk, rules, settings.diagnosis, attributes, wanted, errand.exclusions)
        questions = _Questions(desk, resolver, errand.stop)
        try:
            _watch(errand, questions, counts.rows, counts.rows - counts.rows_waiting)
        except Unusable as error:
            return str(error)
    return ""


class _Questions(threading.Thread):
    """Asks about row after row on one association, until none waits; ``error`` is what ended it before."""

    def __init__(self, desk: _Desk, resolver: Resolver, stop: Stop) -> None:
        super().__init__(name="plan", daemon=True)
        self.sources = desk.sources
        self._ledger = desk.ledger
        self._resolver = resolver
        self._stopping = stop
        self.settled = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Ask."""
        try:
            while self._page():
                pass
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread is raised by who waits for it
            self.error = error
        finally:
            for source in self.sources.values():
                source.archive.hang_up()

    def _page(self) -> bool:
        """Ask about the next rows; False if there are none.

        The archive does not wait for our disk: answers are entered while the next question is put, and
        waited for before the ledger is asked again which rows wait.
        """
        entered: list[Future[int]] = []
        try:
            for request in self._ledger.waiting_requests(_PAGE):
                self._stopping.check()
                entered.append(self._resolver.resolve(request))
        finally:
            self.settled += sum(future.result() for future in entered)
        return bool(entered)


def _watch(errand: Errand, questions: _Questions, rows: int, before: int) -> None:
    """Tell how it gets on, to its end; raises the error that ended it."""
    began, told_stop = time.monotonic(), False
    questions.start()
    while questions.is_alive():
        questions.join(_TICK)
        if errand.stop.requested and not told_stop:
            told_stop = True
            errand.board.say("stopping: run the same command again to go on")
        if errand.stop.urgent:
            for source in questions.sources.values():
                source.archive.close()
        for message in errand.board.messages():
            errand.listener.said(message)
        errand.listener.asking(_asking(errand, rows, before, questions.settled, time.monotonic() - began))
    if questions.error is not None:
        raise questions.error


def _asking(errand: Errand, rows: int, before: int, settled: int, elapsed: float) -> Asking:
    rate = settled / max(elapsed, 0.001)
    return Asking(
        rows=rows,
        asked=before + settled,
        rows_per_second=rate,
        seconds_left=(rows - before - settled) / rate if settled else None,
        waiting=errand.board.waits_for,
        stopping=errand.stop.requested,
    )
