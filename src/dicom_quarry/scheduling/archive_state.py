"""The common knowledge of all jobs about one archive: whether it answers, and when it was last too busy.

It is one record of a shared state. A healthy archive has none: the record is first written when a job cannot
reach the archive. It is read once a second at most, so that it costs a query or a retrieval nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.scheduling.shared_state import Numbers, ProcessState, SharedState

_log = logging.getLogger(__name__)

#: Seconds for which a record that was read is taken for the current one.
_MAX_AGE = 1.0

#: Seconds after which the probe of a job that was killed, or is suspended, does not count any more.
_PROBE_SECONDS = 30.0

#: No pause between two probes is longer, in seconds. A later time is of a clock before a restart.
_MAX_PAUSE = 3600.0

T = TypeVar("T")


class _Record(NamedTuple):
    """Times of the monotonic clock, and the number of probes without an answer since ``opened_at``."""

    opened_at: float = 0.0
    closed_at: float = 0.0
    probe_at: float = 0.0
    failures: float = 0.0
    busy_at: float = 0.0

    @classmethod
    def of(cls, numbers: Numbers) -> _Record:
        return cls(*numbers) if len(numbers) == len(cls._fields) else cls()

    def is_open(self, now: float) -> bool:
        return self.closed_at < self.opened_at <= now


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether an archive answers, and since when it does not, or does again: times of the shared clock.

    ``failures`` is the number of probes without an answer since then, ``probe_at`` the time of the next one.
    """

    is_available: bool = True
    since: float | None = None
    failures: int = 0
    probe_at: float | None = None

    @classmethod
    def of(cls, numbers: Numbers, now: float) -> Condition:
        """Return the condition from an archive's record."""
        record = _Record.of(numbers)
        if record.is_open(now):
            return cls(False, record.opened_at, int(record.failures), record.probe_at)
        return cls(since=record.closed_at or None)


class ArchiveState:
    """The record of one archive in a shared state, by its name there; for the threads of one job.

    Where the place of the state cannot be used, the job goes on with a record of its own.
    """

    def __init__(self, shared_state: SharedState, name: str) -> None:
        self._shared_state = shared_state
        self.name = name
        #: Why the archive did not answer this process last.
        self.problem = ""
        self._read_at = float("-inf")
        self._record = _Record()
        #: What was before this job is no reason for it to do less.
        self._busy_before = self._refresh().busy_at

    @property
    def now(self) -> float:
        """The monotonic time of the shared state."""
        return self._shared_state.clock.monotonic()

    @property
    def is_available(self) -> bool:
        """False while a job waits for the archive to answer; may be a second old."""
        return not self._recent().is_open(self.now)

    @property
    def failures(self) -> int:
        """The number of probes without an answer, of all jobs, since the archive stopped answering."""
        return int(self._recent().failures)

    @property
    def seconds_to_probe(self) -> float:
        """Seconds until the next probe is due; not more than 0 if one is."""
        now = self.now
        return min(self._recent().probe_at, now + _MAX_PAUSE) - now

    @property
    def busy_at(self) -> float:
        """The last time at which the archive was too busy for a job, since this one began."""
        busy_at = self._recent().busy_at
        return busy_at if self._busy_before < busy_at <= self.now else float("-inf")

    def refresh(self) -> None:
        """Read the record again."""
        self._refresh()

    def mark_unavailable(self, pause: float, retry_after: float) -> None:
        """Note that the archive does not answer; the next probe is due after the longer of both seconds."""

        def change(record: _Record) -> _Record:
            now = self.now
            if not record.is_open(now):
                record = record._replace(opened_at=now, closed_at=0.0, probe_at=now + pause, failures=0.0)
            return record._replace(probe_at=max(record.probe_at, now + retry_after))

        self._change(change)

    def claim_probe(self) -> bool:
        """Return True if this job is to send the probe that is due, False if another has begun to."""
        is_mine = False

        def change(record: _Record) -> _Record:
            nonlocal is_mine
            now = self.now
            is_mine = record.is_open(now) and min(record.probe_at, now + _MAX_PAUSE) <= now
            return record._replace(probe_at=now + _PROBE_SECONDS) if is_mine else record

        self._change(change)
        return is_mine

    def on_probe_failed(self, failures: int, pause: float, retry_after: float) -> None:
        """Note a probe without an answer, and when the next one is due."""
        probe_at = self.now + max(pause, retry_after)
        self._change(lambda record: record._replace(failures=float(failures), probe_at=probe_at))

    def mark_available(self) -> None:
        """Note that the archive has answered."""
        self._change(lambda record: record._replace(closed_at=self.now))

    def mark_busy(self, at: float) -> None:
        """Note that the archive was too busy at this monotonic time."""
        self._change(lambda record: record._replace(busy_at=max(record.busy_at, at)))

    def _recent(self) -> _Record:
        if self.now - self._read_at >= _MAX_AGE:
            return self._refresh()
        return self._record

    def _refresh(self) -> _Record:
        self._read_at = self.now
        self._record = _Record.of(self._use(lambda state: state.read(self.name)))
        return self._record

    def _change(self, change: Callable[[_Record], _Record]) -> None:
        def compute(numbers: Numbers) -> tuple[Numbers, _Record]:
            changed = change(_Record.of(numbers))
            return changed, changed

        self._record = self._use(lambda state: state.update(self.name, compute))
        self._read_at = self.now

    def _use(self, operation: Callable[[SharedState], T]) -> T:
        """Use the shared state; go on alone if it cannot be used."""
        try:
            return operation(self._shared_state)
        except OperatorActionRequired as error:
            _log.warning("this job does not see whether the archive answers others: %s", error)
            self._shared_state = ProcessState(self._shared_state.clock)
            return operation(self._shared_state)
