"""A job from its settings to its end: receiver up and heard, threads run, receiver down, whatever happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.cohort.cohort import CohortFile
from dicom_quarry.completion.on_complete import Handing, words_of
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import site_policy
from dicom_quarry.errors import Unusable, told
from dicom_quarry.extraction.archive_clients import open_sources
from dicom_quarry.extraction.course import TICK, Course
from dicom_quarry.extraction.identity_check import Identity
from dicom_quarry.extraction.inbound import Deliveries, JobSink
from dicom_quarry.extraction.job_context import Source, Tools
from dicom_quarry.extraction.matching import Rules
from dicom_quarry.extraction.query_thread import Errand
from dicom_quarry.extraction.reception import reception
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.stored_exclusions import check_stored, exclusions_of
from dicom_quarry.jobs import notification_channels as notify
from dicom_quarry.jobs import record
from dicom_quarry.jobs.audit_log import Audit, accounted
from dicom_quarry.jobs.folder import JobFolder, existing, held, logging_to, prepare, share
from dicom_quarry.jobs.instance_paths import deriver, template_of
from dicom_quarry.jobs.observer import Listener
from dicom_quarry.jobs.progress import Board, Meter, write_queued
from dicom_quarry.jobs.publisher import Watching
from dicom_quarry.jobs.registry import register
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Counts, Derive, Reader
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.model import Arrival, Task, Word
from dicom_quarry.outcomes import codes_of
from dicom_quarry.planning import plan_cache
from dicom_quarry.scheduling.disk_space import Room, RoomySink
from dicom_quarry.scheduling.port_queue import Berth
from dicom_quarry.scheduling.throttle import guest_of
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import Template
from dicom_quarry.system.shutdown import Stop, Stopped
from dicom_quarry.version import __version__

if TYPE_CHECKING:
    from dicom_quarry.planning.planner import PlanEnd
    from dicom_quarry.verification.archive_diff import Again

#: Seconds between two tries to write to a full disk.
_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a run ended. ``nothing_to_do`` is True where an earlier run had finished the job.

    ``problem``: what a person has to do before an archive can be asked on; empty if nothing. ``told`` is the
    same without the archive's own words.
    """

    folder: JobFolder
    counts: Counts
    nothing_to_do: bool = False
    problem: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A job that is open: its folder and record, and how its files are named."""

    folder: JobFolder
    ledger: Ledger
    template: Template
    columns: tuple[str, ...]

    @property
    def derive(self) -> Derive:
        return deriver(self.template)

    def cells(self, task: Task) -> Mapping[str, str]:
        """The user's own columns, by header, of the row that first asked for a task."""
        values = self.ledger.cells(self.ledger.first_row(task.task_id))
        return dict(zip(self.columns, values, strict=False))


class Runner:
    """One run of a job; ``stop`` may be called from a signal handler or another thread.

    ``queue``: wait for the receiver's port where another job of this host has it.
    Raises ConfigError and StartError where the site's policy does not allow the job, or cannot be kept.
    """

    def __init__(self, settings: Settings, listener: Listener, *, queue: bool = False) -> None:
        self._settings = settings
        self._queue = queue
        self._listener = listener
        self._stop = Stop()
        self._asked_to_stop = Stop()
        self._board = Board()
        self._received = (0, 0)
        self._watching = Watching(settings, self._board, listener)
        self._access = settings.access
        self._site = site_policy()
        for archive in settings.archives:
            self._site.check(archive)
        self._exclusions = exclusions_of(settings, self._site)
        self._guests = {
            archive.name: guest_of(archive, settings.parallel, self._site, self._stop, self._board)
            for archive in settings.archives
        }

    def stop(self) -> None:
        """Finish what is in flight and stop; a second call cancels it."""
        self._stop.request()
        self._asked_to_stop.request()

    def extract(self, cohort_path: Path, *, update: bool = False) -> JobEnd:
        """Extract a cohort, or go on with it. Raises InputError, StartError and LedgerError."""
        settings = self._settings
        cohort, rows = record.read(cohort_path, settings)
        self._listener.cohort(cohort.mapping, rows, cohort.notes)
        template = template_of(settings.filepath, cohort.columns)
        with self._opened(cohort) as (folder, ledger):
            if settings.accept_mismatch or _identity(settings) != record.before(ledger, _identity):
                # What was kept apart is judged again.
                ledger.retry({"stored_differs"})
            change = record.enter(ledger, cohort, settings, update=update)
            if change is not None:
                self._listener.updated(change)
            return self._work(_Begun(folder, ledger, template, cohort.columns))

    def plan(self, cohort_path: Path, *, detailed: bool = False) -> PlanEnd:
        """Ask about a cohort, and move nothing. Raises InputError, StartError and LedgerError."""
        # Imported here, like the other verbs' own modules: most runs are extractions.
        from dicom_quarry.planning import planner

        self._tell_limits()
        return planner.make(self._errand(), cohort_path, detailed=detailed)

    def _errand(self) -> Errand:
        return Errand(self._settings, self._guests, self._stop, self._board, self._listener, self._exclusions)

    def retry(self, words: frozenset[Word]) -> JobEnd:
        """Work again on what ended in one of these words."""
        with self._opened() as (folder, ledger):
            again = ledger.retry(codes_of(words))
            with self._audit(folder) as audit:
                audit.write("retried", details=f"{', '.join(sorted(words))}: {again} rows and studies")
            self._listener.said(f"{again} rows and studies are tried again")
            return self._work(self._begun(folder, ledger))

    def _begun(self, folder: JobFolder, ledger: Ledger) -> _Begun:
        columns = tuple(json.loads(ledger.facts()["columns"]))
        return _Begun(folder, ledger, template_of(self._settings.filepath, columns), columns)

    def fetch_again(self, study_uids: list[str]) -> JobEnd:
        """Work again on studies in which verify found something; what is damaged is moved aside first."""
        from dicom_quarry.verification import quarantine

        with self._opened() as (folder, ledger):
            put = quarantine.put_aside(folder, ledger, study_uids)
            number = len(put.damaged)
            told = f"studies tried again: {put.studies}; files damaged or missing: {number}"
            with self._audit(folder) as audit:
                audit.write("retried", details=told)
            self._listener.said(told)
            end = self._work(self._begun(folder, ledger))
            if number:
                here = quarantine.came_again(folder, put, study_uids)
                self._listener.said(f"{here} of the {number} are here again")
            return end

    def compare(self, write: Callable[[Iterator[ChangeView]], object], *, restart: bool) -> Again:
        """List complete studies again, and move nothing; see :func:`against.look`."""
        from dicom_quarry.verification import archive_diff

        self._tell_limits()
        return archive_diff.look(self._errand(), existing(self._settings.to), write, restart=restart)

    @contextmanager
    def _opened(self, cohort: CohortFile | None = None) -> Iterator[tuple[JobFolder, Ledger]]:
        """The job's folder and ledger; where it has not begun, with the answers of its cohort's plan."""
        words_of(self._settings)
        notify.check(self._settings.notify)
        folder = prepare(self._settings.to, self._settings.state)
        share(folder.out, self._access)
        with held(folder), logging_to(folder.log):
            register(folder.out)
            since = self._planned(folder, cohort) if cohort else None
            if since is not None:
                when = plan_cache.spoken(since, datetime.now(UTC))
                self._listener.said(f"the answers of the plan of {when} are used")
            ledger = Ledger(folder.ledger)
            try:
                yield folder, ledger
            finally:
                ledger.close()

    def _planned(self, folder: JobFolder, cohort: CohortFile) -> datetime | None:
        return plan_cache.adopt(folder, cohort, self._settings, self._exclusions.digest)

    def _work(self, begun: _Begun) -> JobEnd:
        """Fetch what is not here, and hand over what is complete."""
        folder, ledger = begun.folder, begun.ledger
        with closing(self._audit(folder)) as audit:
            with closing(Reader(folder.ledger)) as reader:
                check_stored(ledger, reader, self._exclusions, folder.out, begun.derive, audit)
            with Handing(
                self._settings, folder, ledger, begun.derive, audit, self._board, self._asked_to_stop
            ) as handing:
                end = self._fetch(begun, audit, handing.offer)
                return self._see_off(end, handing) if handing.begun or not end.nothing_to_do else end

    def _fetch(self, begun: _Begun, audit: Audit, completed: Callable[[int], None]) -> JobEnd:
        folder = begun.folder
        with closing(Reader(folder.ledger)) as reader:
            counts = reader.counts()
            if counts.fetched:
                return JobEnd(folder, counts, nothing_to_do=True)
            self._tell_limits()
            try:
                problem = self._receive(begun, reader, audit, completed)
            except Stopped:  # while it queued for its port
                problem = None
            finally:
                self._watching.berth = None
            end = JobEnd(folder, reader.counts())
            return replace(end, problem=str(problem), told=told(problem)) if problem else end

    def _receive(
        self, begun: _Begun, reader: Reader, audit: Audit, completed: Callable[[int], None]
    ) -> Unusable | None:
        """Run with a receiver, if one is needed; what a person has to do, if anything. Raises Stopped."""
        folder, ledger, settings = begun.folder, begun.ledger, self._settings
        deliveries = Deliveries(ledger, begun.cells, _identity(settings), self._exclusions)
        admit, access = deliveries.admit, self._access
        store = InstanceStore(
            folder.out, begun.template, incoming=folder.incoming, admit=admit, access=access
        )
        store.clear_incoming()
        room = Room(folder.out, settings.keep_free_bytes, self._stop, self._board)
        sink = JobSink(RoomySink(store, room), deliveries, self._counting)
        berth = self._watching.berth = self._berth_for(folder)
        received = reception(settings, sink, self._board.say, berth)
        sources = self._sources(served=reader.counts().instances_stored > 0)
        with received as stats, sources as found, self._accounted(audit, ledger, reader):
            self._listener.under_way(folder)
            tools = Tools(
                sources=found,
                sink=sink,
                disk=store,
                derive=begun.derive,
                deliveries=deliveries,
                ledger=ledger,
                board=self._board,
                stop=self._stop,
                room=room,
                audit=audit,
                exclusions=self._exclusions,
                completed=completed,
            )
            meter = Meter(reader, self._board)
            course = Course(tools, self._resolver(tools), sink, stats, meter, folder, self._watching)
            problem = course.run(max(guest.ceiling for guest in self._guests.values()))
        self._received = sink.totals
        if sink.refused:
            ledger.note(refused=str(int(ledger.facts().get("refused", "0")) + sink.refused))
        return problem

    def _resolver(self, tools: Tools) -> Resolver:
        settings, exclusions = self._settings, self._exclusions
        rules = Rules(settings.allow_several_patients, settings.max_studies)
        series = record.series_filter(settings)
        return Resolver(tools, rules, settings.diagnosis, series=series, exclusions=exclusions)

    def _audit(self, folder: JobFolder) -> Audit:
        def full(told: str) -> None:
            if told:
                self._board.say(told)
            with self._board.waiting("room on the disk", person=True):
                self._stop.pause(_PAUSE)

        return Audit(folder.audit, self._settings.protocol, full)

    def _accounted(self, audit: Audit, ledger: Ledger, reader: Reader) -> AbstractContextManager[None]:
        told = [f"cohort {ledger.facts()['cohort']}", f"Quarry {__version__}"]
        told += [f"exclusion lists {self._exclusions.digest}"] if self._exclusions else []
        archives = [one.spoken for one in self._settings.archives]
        return accounted(audit, archives, "; ".join(told), reader.counts)

    def _see_off(self, end: JobEnd, handing: Handing) -> JobEnd:
        """Wait until everything that is complete is handed over, or the job is to stop."""
        why = self._board.waiting("the commands of on-complete to end")
        with closing(Reader(end.folder.ledger)) as reader, why:
            meter = Meter(reader, self._board)
            while handing.busy:
                stopping = self._asked_to_stop.requested
                self._watching.show(meter.snapshot(*self._received, stopping=stopping), end.folder)
                time.sleep(TICK)
            self._watching.over(end.folder)
            return replace(end, counts=reader.counts(), nothing_to_do=False)

    def _berth_for(self, folder: JobFolder) -> Berth:
        def waits(behind: str) -> None:
            self._listener.queued(behind)
            self._listener.under_way(folder)
            write_queued(folder.progress, behind)

        local, shared = self._settings.local, self._site.shared
        return Berth(local, folder.out, shared, self._stop, queue=self._queue, waits=waits)

    def _sources(self, *, served: bool) -> AbstractContextManager[Mapping[str, Source]]:
        return open_sources(self._settings, self._guests, self._stop, self._board, served=served)

    def _counting(self, arrival: Arrival) -> Callable[[int], None] | None:
        """Who is to be told of an instance's bytes: the guest of the archive that sends, by its title.

        Archives may send under another title than they answer to: then it is that of the first.
        """
        archives = self._settings.archives
        sender = next((one for one in archives if one.sent(arrival)), archives[0])
        guest = self._guests[sender.name]
        return guest.received if guest.limits_bytes else None

    def _tell_limits(self) -> None:
        for archive in self._settings.archives:
            if archive.dicomweb is not None and archive.dicomweb.is_open:
                self._listener.said(f"{archive.dicomweb} is not https: others can read along on the way")
            limits = self._site.spoken(archive)
            if limits:
                self._listener.said(limits)
        if self._exclusions:
            self._listener.said(f"must not be taken (--exclude): {self._exclusions.spoken}")


def _identity(settings: Settings) -> Identity:
    return Identity(
        accept_all=settings.accept_mismatch,
        accept_patients=all(archive.merged_ids == "accept" for archive in settings.archives),
    )
