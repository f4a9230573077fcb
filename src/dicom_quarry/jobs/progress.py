"""The progress of a running job, for a display in this process and for ``quarry status`` in another."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Protocol

from dicom_quarry.ledger.reader import Counts, LedgerReader
from dicom_quarry.model import Task

_log = logging.getLogger("dicom_quarry.job")

#: Seconds over which the rates are averaged.
_RATE_WINDOW = 30.0

#: Largest share of the time for counting, which takes seconds in a large ledger; and the longest pause, in
#: seconds, as after a count that has waited for a database.
_MAX_COUNT_SHARE = 0.02
_MAX_COUNT_PAUSE = 20.0


@dataclass(slots=True)
class ActiveStudy:
    """A study being transferred: its first row, and the numbers of its stored and listed instances.

    ``patient_id`` and ``accession`` are for a terminal alone.
    """

    row: int
    stored: int
    listed: int
    task_id: int = 0
    patient_id: str = ""
    accession: str = ""


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """The seconds that a job still needs, None while that is unknown; its bytes so far, and in the end."""

    seconds: float | None = None
    bytes_done: int = 0
    bytes_expected: int = 0


class TimeEstimator(Protocol):
    """Estimates how long a job still needs."""

    def update(self, now: datetime, counts: Counts, instances: int, size: int) -> TimeLeft:
        """Return the estimate for a moment; ``instances`` and ``size`` were received in this run."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A job at one moment, in seconds and bytes; ``waiting_for`` is the reason of a wait, or empty.

    ``bytes_expected`` is estimated; 0 if unknown.
    """

    counts: Counts
    elapsed: float
    instances: int
    size: int
    instances_per_second: float
    bytes_per_second: float
    seconds_left: float | None
    active_studies: tuple[ActiveStudy, ...]
    waiting_for: str
    stopping: bool
    bytes_done: int = 0
    bytes_expected: int = 0


@dataclass(frozen=True, slots=True)
class QueryProgress:
    """The queries of a plan or a comparison at one moment: ``done`` of ``total``, counted in ``unit``."""

    unit: str
    total: int
    done: int
    per_second: float
    seconds_left: float | None
    waiting_for: str
    stopping: bool


class StatusBoard:
    """A board on which a job's threads report messages, waits and studies, without identifiers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active_studies: dict[int, ActiveStudy] = {}
        self._waits: list[tuple[str, bool]] = []
        self._messages: deque[str] = deque(maxlen=1000)

    def report(self, message: str) -> None:
        """Show a message to the user, and log it."""
        _log.info(message)
        self._messages.append(message)

    def take_messages(self) -> Iterator[str]:
        """Yield the messages since the last call."""
        while self._messages:
            yield self._messages.popleft()

    @contextmanager
    def report_waiting(self, reason: str, *, needs_operator: bool = False) -> Iterator[None]:
        """Report a wait while the context lasts; ``needs_operator``: a person may have to act to end it."""
        wait = (reason, needs_operator)
        with self._lock:
            self._waits.append(wait)
        try:
            yield
        finally:
            with self._lock:
                self._waits.remove(wait)

    @property
    def waiting_for(self) -> str:
        """The reason of the latest wait, or empty."""
        with self._lock:
            return self._waits[-1][0] if self._waits else ""

    @property
    def operator_action_needed(self) -> str:
        """The reason of a wait that a person may have to end, or empty."""
        with self._lock:
            return next((reason for reason, needs_operator in self._waits if needs_operator), "")

    @contextmanager
    def track_study(self, task: Task, row: int, listed: int) -> Iterator[ActiveStudy]:
        """Show a study as being transferred while the context lasts."""
        task_id, found = task.task_id, task.study
        study = ActiveStudy(row, 0, listed, task_id, found.patient_id, found.accession)
        with self._lock:
            self._active_studies[task_id] = study
        try:
            yield study
        finally:
            with self._lock:
                del self._active_studies[task_id]

    def active_studies(self) -> tuple[ActiveStudy, ...]:
        """Return the studies being transferred."""
        with self._lock:
            return tuple(self._active_studies.values())


class ProgressMeter:
    """Makes snapshots from a status board, the ledger's counts and the receiver's totals."""

    def __init__(
        self, reader: LedgerReader, status_board: StatusBoard, estimator: TimeEstimator | None = None
    ) -> None:
        self._reader = reader
        self._estimator = estimator
        self._status_board = status_board
        self._started_at = time.monotonic()
        self._counts = self._counts_before = reader.counts()
        self._counted_at = self._started_at
        self._count_seconds = self._last_count_seconds = 0.0
        self._totals: deque[tuple[float, int, int]] = deque([(self._started_at, 0, 0)])

    def snapshot(self, instances: int, size: int, *, stopping: bool) -> Snapshot:
        """Return the job now; ``instances`` and ``size`` are the totals received in this run."""
        now = time.monotonic()
        self._update_counts(now)
        self._totals.append((now, instances, size))
        while len(self._totals) > 2 and now - self._totals[0][0] > _RATE_WINDOW:
            self._totals.popleft()
        then, instances_then, size_then = self._totals[0]
        span = max(now - then, 0.001)
        left = TimeLeft()
        if self._estimator is not None:
            left = self._estimator.update(datetime.now(UTC), self._counts, instances, size)
        return Snapshot(
            counts=self._counts,
            elapsed=now - self._started_at,
            instances=instances,
            size=size,
            instances_per_second=(instances - instances_then) / span,
            bytes_per_second=(size - size_then) / span,
            seconds_left=left.seconds,
            active_studies=self._status_board.active_studies(),
            waiting_for=self._status_board.waiting_for,
            stopping=stopping,
            bytes_done=left.bytes_done,
            bytes_expected=left.bytes_expected,
        )

    def snapshot_from_record(self) -> Snapshot:
        """Return a job that others work on: what they have received is what the record has gained."""
        self._update_counts(time.monotonic())
        instances = self._counts.instances_stored - self._counts_before.instances_stored
        return self.snapshot(instances, self._counts.size - self._counts_before.size, stopping=False)

    def _update_counts(self, now: float) -> None:
        pause = min(max(0.5, self._count_seconds / _MAX_COUNT_SHARE), _MAX_COUNT_PAUSE)
        if now - self._counted_at < pause:
            return
        self._counts = self._reader.counts()
        self._counted_at = time.monotonic()
        # One that has waited for a database that was away says nothing of the next one.
        before, self._last_count_seconds = self._last_count_seconds, self._counted_at - now
        self._count_seconds = min(before, self._last_count_seconds)


def describe_snapshot(snapshot: Snapshot) -> dict[str, object]:
    """Return a snapshot as the progress of the job, for other processes."""
    values = asdict(snapshot)
    for name in ("study_groups", "rows_by_code", "studies_by_code"):  # in the record for every reader
        del values["counts"][name]
    for study in values["active_studies"]:
        del study["patient_id"], study["accession"]  # the file is read by programs that write logs
    return values


def describe_queued(waiting_for: str) -> dict[str, object]:
    """Return the progress of a job that is queued for its port, with the reason."""
    return {"queued": True, "waiting_for": waiting_for}
