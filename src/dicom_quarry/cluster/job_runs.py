"""The jobs that a worker has open, and the archives that it can use now."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from dicom_quarry.cluster.archive_probes import ArchiveProbes
from dicom_quarry.cluster.engine import ROWS_QUEUE, command_queue, study_queue
from dicom_quarry.cluster.job_run import (
    Equipment,
    JobChanged,
    JobRun,
    open_job_run,
    require_folder_below,
)
from dicom_quarry.cluster.left_work import LeftWork
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import (
    InputError,
    LedgerError,
    OperatorActionRequired,
    ReceiverEnded,
    RoomUsedUp,
)
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.cluster.workers import FILES_QUEUE
from dicom_quarry.jobs.internal_errors import is_internal
from dicom_quarry.scheduling.archive_facts import ArchiveFacts
from dicom_quarry.system.error_trace import format_trace
from dicom_quarry.system.shutdown import Stopped

_log = logging.getLogger(__name__)

#: Seconds for which a token waits that has nothing to do: another worker may take the next one.
_REFUSED_PAUSE = 1.0

#: Queries for rows at once, on one worker: a row has its studies before any other waits for them.
ROWS_AT_ONCE = 2


_JOBS = "SELECT number, with_workers, cancelled, hand_overs FROM quarry.jobs WHERE number = ANY (%s)"


def command_queues(settings: Settings) -> dict[str, int]:
    """Return the tokens at once by queue, for the commands that a worker's settings define."""
    return {command_queue(name): settings.on_complete_parallel for name in settings.commands}


@dataclass(slots=True)
class _OpenJob:
    """A job that is open, and the number of threads that work on it.

    ``hand_overs`` is that of the job when it was opened, ``is_changed`` is True once it is another.
    """

    run: JobRun
    closing: ExitStack
    hand_overs: int
    users: int = 0
    is_stopping: bool = False
    is_changed: bool = False


class JobRuns:
    """The work of one worker on the jobs of a database; see :class:`worker.WorkerJobs`."""

    def __init__(self, cluster: Cluster, equipment: Equipment, wait: Callable[[float], object]) -> None:
        self._cluster = cluster
        self._equipment = equipment
        self._counts = equipment.counts
        self._wait = wait
        self._lock = threading.Lock()
        #: Held while a job is opened or closed: both have the same claims, and the same folder.
        self._opening = threading.RLock()
        self._open: dict[int, _OpenJob] = {}
        self._rests = False
        self._left = LeftWork()
        #: The parts of comparisons of files in work.
        self._comparisons = 0
        self._names: dict[int, str] = {}
        self._probes = ArchiveProbes(self._leave_archive)

    def open_queues(self) -> Mapping[str, int]:
        """Return the tokens at once by queue: of the archives that are inside their windows, and answer."""
        clients = self._equipment.worker.clients
        available = {name: client.throttle.archive_state.is_available for name, client in clients.items()}
        usable = {
            name: client
            for name, client in clients.items()
            if client.throttle.is_open and not self._left.has(f"archive {name}")
        }
        for name in usable:
            if not available[name]:
                self._probes.begin(name, usable[name])
        queues = {
            study_queue(name): client.throttle.max_parallel
            for name, client in usable.items()
            if available[name]
        }
        queues |= {ROWS_QUEUE: ROWS_AT_ONCE} if queues else {}
        queues |= command_queues(self._equipment.queries.settings) | {FILES_QUEUE: 1}
        self._counts.set_usable(available, queues)
        return queues

    def describe_wait(self) -> str:
        """Return what the worker waits for, and what it cannot use."""
        waiting_for = self._equipment.queries.status_board.waiting_for
        with self._lock:
            opened = [(number, one.run.describe_command()) for number, one in self._open.items()]
            waiting = [(number, one.run.waiting_for) for number, one in self._open.items()]
        left = [f"{self._names.get(number, f'job {number}')}: {text}" for number, text in opened if text]
        waits = [f"waiting for {waiting_for}"] if waiting_for else []
        waits += [f"{self._label(number)}: waiting for {reason}" for number, reason in waiting if reason]
        return "; ".join([*waits, *self._left.describe(), *left])

    def describe_archives(self) -> Mapping[str, Any]:
        """Return the limits of each archive, and whether it answers."""
        return {
            name: ArchiveFacts.of(
                client.throttle, client.profile.description, *self._left.refusal_of(name)
            ).to_json()
            for name, client in self._equipment.worker.clients.items()
        }

    def query_rows(self, job: int) -> None:
        """Query for the next rows of a job."""
        with self._counts.token(ROWS_QUEUE):
            self._work(job, f"rows of job {job}", lambda run: run.query_rows())

    def fetch_study(self, job: int, archive: str) -> None:
        """Fetch the next study of a job; an archive that refuses this worker is left to the others."""
        selector = self._equipment.worker.clients[archive].transport_selector
        if not selector.available and not self._left.has(f"archive {archive}"):
            selector.reset()
        with self._counts.token(study_queue(archive)):
            self._work(job, f"archive {archive}", lambda run: run.fetch_study(archive), archive)

    def run_command(self, job: int, name: str) -> None:
        """Run a command for the next complete study of a job."""
        with self._counts.token(command_queue(name)):
            self._work(job, f"command {name} of job {job}", lambda run: run.run_command())

    def compare_files(self, job: int) -> None:
        """Compare the next part of a job's files with its record; it is given back when this worker stops."""
        key, compare, identity = f"files of job {job}", self._equipment.compare_part, self._equipment.identity
        has_compared = False
        with self._counts.token(FILES_QUEUE):
            self._comparisons += 1
            try:
                if not (self._must_end() or self._left.has(key)):
                    place = self._find_place(job)
                    require_folder_below(place, self._equipment.root)
                    has_compared = compare(place, identity, self._must_end)
            except Stopped:
                pass
            except Exception as error:  # noqa: BLE001 - as in the work on studies
                self._leave(job, error, key)
            finally:
                self._comparisons -= 1
        if not has_compared:
            self._wait(_REFUSED_PAUSE)

    def require_receiver(self) -> None:
        """Raise ReceiverEnded if this worker receives nothing any more, and cancel its transfers."""
        try:
            self._equipment.worker.receiver_stats()
        except ReceiverEnded:
            self.close(cancel=True)
            raise

    def attend(self, connection: psycopg.Connection) -> None:
        """Stop the jobs that the workers do not have any more, and close those that no thread works on.

        Those that were given to the workers again are opened again: their settings may have changed.
        """
        self._counts.contact_at = time.time()
        with self._lock:
            numbers = list(self._open)
        found = connection.execute(_JOBS, (numbers,)).fetchall() if numbers else []
        states = {number: state for number, *state in found}
        for number in numbers:
            has_it, cancelled, hand_overs = states.get(number, (False, True, 0))
            opened = self._open.get(number)
            if opened is None:
                continue
            if not has_it:
                self._stop(number, cancel=cancelled)
            elif hand_overs != opened.hand_overs:
                opened.is_changed = True
                self._stop(number, cancel=False)

    def rest(self) -> bool:
        """Take no job, and finish what those that are open have begun; return True when none is open."""
        self._rests = True
        if not self._opening.acquire(blocking=False):
            return False  # a thread opens one that it took before
        try:
            self.close(cancel=False)
            return not (self._open or self._comparisons)
        finally:
            self._opening.release()

    def go_on(self) -> None:
        """Take jobs again."""
        self._rests = False

    def close(self, *, cancel: bool) -> None:
        """Stop all jobs; those in work are closed when their threads have ended."""
        with self._lock:
            numbers = list(self._open)
        for number in numbers:
            self._stop(number, cancel=cancel)

    def _work(self, job: int, key: str, work: Callable[[JobRun], None], archive: str = "") -> None:
        """Do the work of a token; what a person has to solve under ``key`` is left to others for a while."""
        opened = None if self._left.has(key) else self._take(job)
        if opened is None:
            self._wait(_REFUSED_PAUSE)
            return
        try:
            work(opened.run)
        except Stopped:
            pass
        except JobChanged:
            opened.is_changed = True
            self._stop(job, cancel=False)
        except RoomUsedUp as error:  # the job stays open: others of this worker go on
            self._left.add(f"job {job}", error, self._label(job))
            self._wait(_REFUSED_PAUSE)
        except OperatorActionRequired as error:
            self._leave_archive(error.archive or archive, error, key)
        except Exception as error:  # noqa: BLE001 - the engine would give the same work out again at once
            self._leave(job, error)
            opened.is_stopping = True  # its record is opened again later
        finally:
            self._give_back(job, opened)

    def _leave_archive(self, archive: str, error: OperatorActionRequired, key: str = "") -> None:
        """Leave an archive to the others, or the work under another key for which it is needed."""
        self._counts.add_error("archive")
        clients = self._equipment.worker.clients
        at = clients[archive].throttle.clock.now() if archive in clients else 0.0
        self._left.add(key or f"archive {archive}", error, archive=archive, at=at)

    def _leave(self, job: int, error: Exception, key: str = "") -> None:
        """Leave a job to the others, or what else has a key."""
        if is_internal(error):
            _log.error("job %d: internal error, a defect of Quarry\n%s", job, format_trace(error))
        self._counts.add_error("job")
        self._left.add(key or f"job {job}", error, self._label(job))

    def _must_end(self) -> bool:
        """Return True if this worker takes nothing any more."""
        return self._rests or bool(self._wait(0))

    def _label(self, job: int) -> str:
        return f"job:{self._names[job]}" if job in self._names else ""

    def _take(self, job: int) -> _OpenJob | None:
        with self._opening:
            with self._lock:
                opened = self._open.get(job)
                if opened is not None:
                    opened.users += not opened.is_stopping
                    return None if opened.is_stopping else opened
            if not self._rests and not self._left.has(f"job {job}"):
                try:
                    opened = self._open_job(job)
                except Exception as error:  # noqa: BLE001 - as in the work on it
                    self._leave(job, error)
                else:
                    with self._lock:
                        self._open[job] = opened
                    return opened
        return None

    def _open_job(self, job: int) -> _OpenJob:
        place = self._find_place(job)
        with ExitStack() as stack:
            run = stack.enter_context(open_job_run(place, self._equipment))
            _log.info("job %d is open", job)
            return _OpenJob(run, stack.pop_all(), place.job.hand_overs, users=1)

    def _find_place(self, job: int) -> ClusterPlace:
        row = self._cluster.get(job)
        if row is None:
            raise InputError("it was removed")
        self._names[job] = row.name
        return ClusterPlace(row.folder, row.folder / ".quarry", self._cluster, row)

    def _stop(self, job: int, *, cancel: bool) -> None:
        with self._lock:
            opened = self._open.get(job)
            if opened is None:
                return  # the last thread of it has closed it meanwhile
            opened.is_stopping = True
        opened.run.stop(cancel=cancel)
        # The signs of life do not wait for a thread that opens a job: the next one closes this.
        if self._opening.acquire(blocking=False):
            try:
                self._close_if_unused(job, opened)
            finally:
                self._opening.release()

    def _give_back(self, job: int, opened: _OpenJob) -> None:
        with self._lock:
            opened.users -= 1
        with self._opening:
            is_closed = self._close_if_unused(job, opened)
        if is_closed and opened.is_changed:
            # What has just ended may be on an exclusion list since.
            self._work(job, f"job {job}", lambda run: run.mark_excluded())

    def _close_if_unused(self, job: int, opened: _OpenJob) -> bool:
        """Close a job that is stopped, and that no thread works on; return True if this was done."""
        with self._lock:
            if opened.users or not opened.is_stopping or self._open.get(job) is not opened:
                return False
            del self._open[job]
        try:
            opened.closing.close()
        except LedgerError as error:
            _log.warning("job %d: %s", job, error)
        return True
