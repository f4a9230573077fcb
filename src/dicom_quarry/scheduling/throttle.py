"""The throttle of an archive: its time window, rate limits and concurrency limit, for every request.

The limits of an archive's profile apply to one job, those of the site to all jobs of the host together. The
throttle decides *when* a request may start. The circuit breaker and the retry policy decide what to request,
and what to repeat.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial, reduce
from operator import and_

from dicom_quarry.archive.base import CANNOT_SEND_STATUSES, RetrieveResult, Verdict
from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.errors import ConfigError, OperatorActionRequired
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.archive_state import ArchiveState
from dicom_quarry.scheduling.rate_counters import (
    BYTES,
    OWN,
    QUERIES,
    STUDIES,
    RateCounter,
    build_counters,
)
from dicom_quarry.scheduling.rate_limit import AdaptiveConcurrency
from dicom_quarry.scheduling.shared_state import Clock, ProcessState, SharedState, Slot
from dicom_quarry.system.shutdown import Shutdown, Stopped

#: Statuses for lack of resources (PS3.4 C.4.2.1.5): the archive may need fewer retrievals at once.
_OVERLOADED = frozenset({0xA700, 0xA701, 0xA702})

#: Longest sleep in seconds, as the host's clock may be set meanwhile.
_MAX_SLEEP = 60.0

#: Seconds between two checks of the limit on this job's retrievals.
_POLL_INTERVAL = 0.1


class RetrievalPermit:
    """The permit for one retrieval, from the moment at which it may start."""

    def __init__(self, throttle: ArchiveThrottle, expires_at: float, slots: Sequence[Slot]) -> None:
        self._throttle = throttle
        self._expires_at = expires_at
        self._slots = slots
        self._started_at = throttle.clock.monotonic()

    @property
    def ended_by(self) -> str:
        """Why the retrieval has to end now, and when it continues; empty while it may go on."""
        if self._throttle.clock.now() >= self._expires_at and not self._throttle.is_open:
            return "the time window has closed; it continues when the window opens"
        if any(slot.is_lost for slot in self._slots):
            return "the database with the limits does not answer; it continues when it does"
        return ""

    def record_result(self, result: RetrieveResult) -> RetrieveResult:
        """Adapt the concurrency limit to the archive's answer, and return that."""
        overloaded = result.status in _OVERLOADED or result.retry_after is not None
        if overloaded or result.verdict is Verdict.LOST:
            # Some archives crash under several retrievals at once instead of rejecting them.
            self._throttle.on_rejected(self._started_at, _describe_overload(result))
        elif result.verdict in (Verdict.SUCCESS, Verdict.WARNING):
            self._throttle.on_success()
        return result


def count_query_threads(parallel: int) -> int:
    """Return the number of queries at once for so many retrievals at once."""
    return parallel // 2 + 1 if parallel > 1 else 1


def _describe_overload(result: RetrieveResult) -> str:
    """Describe why fewer retrievals run at once. A failure to send need not mean that the archive is busy."""
    if result.verdict is Verdict.LOST:
        return "the connection to the archive was lost"
    if result.status in CANNOT_SEND_STATUSES:
        return f"the archive could not send ({result.status:04X})"
    return "the archive is busy"


class ArchiveThrottle:
    """The throttle of one archive, shared by the threads of a job.

    ``archive_limits`` are those of the archive's profile; ``site_limits`` those of the site, by their names
    in ``shared_state``, where the archive's own record is under ``archive``. ``parallel`` is the number of
    retrievals at once that the user wants. Raises ConfigError if the time windows have no hour in common.
    """

    def __init__(
        self,
        archive_limits: Limits,
        site_limits: Mapping[str, Limits],
        *,
        parallel: int,
        shared_state: SharedState,
        shutdown: Shutdown,
        status_board: StatusBoard,
        archive: str = "archive",
    ) -> None:
        all_limits = [archive_limits, *site_limits.values()]
        self._shared_state = shared_state
        #: What all jobs that share the state know about the archive.
        self.archive_state = ArchiveState(shared_state, archive)
        self._shutdown = shutdown
        self._status_board = status_board
        #: The windows, retrievals at once, and pools with their sizes: see also ``archive_facts``.
        self.schedule = reduce(and_, (limits.schedule for limits in all_limits))
        self._grace_seconds = min(limits.grace_seconds for limits in all_limits)
        self.concurrency = AdaptiveConcurrency(
            min([parallel, *(one.parallel for one in all_limits if one.parallel)])
        )
        self.max_queries = count_query_threads(self.concurrency.max_limit)
        self._query_slots = threading.BoundedSemaphore(self.max_queries)
        # An archive's slots before the host's: a wait for one archive must not block retrievals from another.
        self.shared_slots = [
            (name, one.parallel) for name, one in reversed(list(site_limits.items())) if one.parallel
        ]
        # The limits of the profile are for one job.
        scopes: list[tuple[str, SharedState, Limits]] = [(OWN, ProcessState(self.clock), archive_limits)]
        scopes += [(name, shared_state, limits) for name, limits in site_limits.items()]
        self._query_rates = build_counters(scopes, QUERIES)
        self._study_rates = build_counters(scopes, STUDIES)
        self._byte_rates = build_counters(scopes, BYTES)
        self._lock = threading.Lock()
        self._active = 0
        self._byte_problem: OperatorActionRequired | None = None
        self._announce_lock = threading.Lock()
        self._thread_local = threading.local()
        if self.schedule.next_open(self._now()) is None:
            raise ConfigError(
                "the archive could never be queried: its time window and the site's have no hour in common"
            )

    @property
    def clock(self) -> Clock:
        """The clock of all that share the limits."""
        return self._shared_state.clock

    @property
    def max_parallel(self) -> int:
        """The largest number of retrievals at once."""
        return self.concurrency.max_limit

    @property
    def has_byte_limit(self) -> bool:
        """True if there is a limit on bytes: then ``throttle_bytes`` has to be called."""
        return bool(self._byte_rates)

    @property
    def rates(self) -> list[RateCounter]:
        """The rate limits."""
        return [*self._query_rates, *self._study_rates, *self._byte_rates]

    @property
    def has_window(self) -> bool:
        """True if there is a time window."""
        return bool(self.schedule.windows)

    @property
    def is_open(self) -> bool:
        """True inside the time window."""
        return self.schedule.is_open(self._now())

    @property
    def query_count(self) -> int:
        """The number of queries of the calling thread so far."""
        return getattr(self._thread_local, "queries", 0)

    def wait_until_open(self) -> None:
        """Wait until the time window is open; raise Stopped."""
        if self.is_open:
            return
        if not self._announce_lock.acquire(blocking=False):
            self._sleep_until_open()
            return
        try:
            opens = self.schedule.next_open(self._now())
            until = self.schedule.format_time(opens) if opens else "it opens"
            self._status_board.report(f"outside the window: waiting until {until}")
            with self._status_board.report_waiting(f"the window, until {until}"):
                self._sleep_until_open()
            self._status_board.report("inside the window again")
        finally:
            self._announce_lock.release()

    @contextmanager
    def query_slot(self) -> Iterator[None]:
        """Hold one of the slots for queries at once while the context lasts; raise Stopped."""
        while not self._query_slots.acquire(timeout=_POLL_INTERVAL):
            self._shutdown.wait_unless_cancelled(0)
        try:
            yield
        finally:
            self._query_slots.release()

    def acquire_query(self) -> None:
        """Wait until a query may start, also one that continues a listing; raise Stopped."""
        self.wait_until_open()
        for counter in self._query_rates:
            counter.acquire(self._shutdown.wait_unless_cancelled)
        self._thread_local.queries = self.query_count + 1

    def wait_for_association(self, seconds: float) -> None:
        """Wait while the archive has as many associations as it accepts; raise Stopped."""
        self._shutdown.wait_unless_stopping(seconds)
        self.wait_until_open()

    @contextmanager
    def acquire_retrieval(self, *, is_repeat: bool = False) -> Iterator[RetrievalPermit]:
        """Wait until a retrieval may start, and hold its slot while the context lasts; raise Stopped.

        ``is_repeat``: it is for more of a study that the rate limit has counted.
        """
        with ExitStack() as stack:
            while True:
                if self._byte_problem is not None:
                    raise self._byte_problem
                self.wait_until_open()
                slots = stack.enter_context(self._slot())
                for counter in () if is_repeat else self._study_rates:
                    counter.acquire(partial(self._wait_for_rate, counter.origin))
                if self.is_open:
                    break
                stack.close()
            yield RetrievalPermit(self, self._compute_expiry(), slots)

    def throttle_bytes(self, size: int) -> None:
        """Sleep until so many received bytes were due, which delays their sender. Raises nothing."""
        # A cancelled retrieval ends in another thread; the receiver only stops waiting.
        with suppress(Stopped):
            try:
                wait = max((counter.debit(size) for counter in self._byte_rates), default=0.0)
            except OperatorActionRequired as error:
                self._byte_problem = error
                return
            self._shutdown.wait_unless_cancelled(wait)

    def on_rejected(self, started_at: float, why: str = "the archive is busy") -> None:
        """Record that the archive had too many requests at ``started_at`` (``clock.monotonic``)."""
        now = self.clock.monotonic()
        self.archive_state.refresh()
        self._adopt_rejections()
        with self._lock:
            was_reduced = self.concurrency.on_rejected(started_at, now)
            is_new, current_limit = self.concurrency.halved_at == now, self.concurrency.current_limit
        if is_new:
            self.archive_state.mark_busy(now)
        if was_reduced:
            self._status_board.report(f"{why}: at most {current_limit} at once for a while")

    def _adopt_rejections(self) -> None:
        """Lower the limit for a rejection that another job had since this one's last."""
        busy_at = self.archive_state.busy_at
        with self._lock:
            is_new = busy_at > self.concurrency.halved_at
            was_reduced = is_new and self.concurrency.on_rejected(busy_at, busy_at)
            current_limit = self.concurrency.current_limit
        if was_reduced:
            self._status_board.report(
                f"the archive is busy with another job: at most {current_limit} at once for a while"
            )

    def on_success(self) -> None:
        """Record a successful retrieval."""
        with self._lock:
            self.concurrency.on_success()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def _compute_expiry(self) -> float:
        closes = self.schedule.next_close(self._now()) if self._grace_seconds < float("inf") else None
        return closes.timestamp() + self._grace_seconds if closes else float("inf")

    def _sleep_until_open(self) -> None:
        opens = self.schedule.next_open(self._now())
        while not self.is_open:
            left = opens.timestamp() - self.clock.now() if opens else _MAX_SLEEP
            self._shutdown.wait_unless_stopping(min(left, _MAX_SLEEP) if left > 0 else _MAX_SLEEP)

    @contextmanager
    def _slot(self) -> Iterator[list[Slot]]:
        while not self._try_acquire():
            self._shutdown.wait_unless_stopping(_POLL_INTERVAL)
        try:
            with ExitStack() as stack:
                yield [
                    stack.enter_context(
                        self._shared_state.slot(name, limit, partial(self._wait_for_slot, name))
                    )
                    for name, limit in self.shared_slots
                ]
        finally:
            with self._lock:
                self._active -= 1

    def _try_acquire(self) -> bool:
        self._adopt_rejections()
        with self._lock:
            is_acquired = self._active < self.concurrency.limit(self.clock.monotonic())
            self._active += is_acquired
            return is_acquired

    def _wait_for_slot(self, pool: str, seconds: float) -> None:
        holder = self._shared_state.describe_holder(pool)
        reason = f"another job to finish a study (the site's limit is reached: {holder})"
        with self._status_board.report_waiting(reason):
            self._shutdown.wait_unless_stopping(seconds)

    def _wait_for_rate(self, origin: str, seconds: float) -> None:
        due = (self._now() + timedelta(seconds=seconds)).astimezone()
        with self._status_board.report_waiting(f"the rate limit ({origin}): next study at {due:%H:%M:%S}"):
            self._shutdown.wait_unless_stopping(min(seconds, _MAX_SLEEP))
