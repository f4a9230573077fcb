"""The state that all workers of a database share: slots and numbers, as rows, with the database's clock.

A slot is a lease. A thread of each worker renews its leases every few seconds; a worker that is killed, or
frozen, or cut off from the database holds none of them for longer than the lease. A worker that cannot renew
learns it before its leases pass on: ``expires_at`` is then in the past, and its retrievals are cancelled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from dicom_quarry.scheduling.shared_state import Clock, Numbers, Sleep
from dicom_quarry.system.service_loop import start_thread

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two renewals of a lease, and before its end at which a worker that could not renew gives up
#: what it does under it: the time that a C-CANCEL and an abort may take.
_RENEW_INTERVAL = 5.0
_MARGIN = 10.0

#: Seconds between two attempts at a slot, and at a database that is away.
_POLL_INTERVAL = 0.1
_RECONNECT_INTERVAL = 1.0

#: Seconds for which the holder of a pool is remembered.
_HOLDER_SECONDS = 5.0

#: Errors of a database that is away.
_AWAY = (psycopg.OperationalError, PoolTimeout, psycopg.InterfaceError)

# One worker takes a slot that is free, or whose lease has passed; of two that choose the same, one gets it.
_TAKE = """
INSERT INTO quarry.slots (pool, number, lease, worker, until)
SELECT %(pool)s, place.number, nextval('quarry.leases'), %(worker)s,
    clock_timestamp() + %(seconds)s * interval '1 s'
FROM generate_series(0, %(limit)s - 1) place (number)
WHERE NOT EXISTS (
    SELECT FROM quarry.slots held
    WHERE held.pool = %(pool)s AND held.number = place.number AND held.until > clock_timestamp()
)
ORDER BY place.number LIMIT 1
ON CONFLICT (pool, number) DO UPDATE
SET lease = EXCLUDED.lease, worker = EXCLUDED.worker, until = EXCLUDED.until
WHERE slots.until <= clock_timestamp()
RETURNING lease
"""
# A lease that has passed is not renewed: another worker may be about to take it.
_RENEW = """
UPDATE quarry.slots SET until = clock_timestamp() + %(seconds)s * interval '1 s'
WHERE lease = ANY (%(leases)s) AND until > clock_timestamp()
RETURNING lease
"""
_GIVE_BACK = "DELETE FROM quarry.slots WHERE pool = %(pool)s AND lease = %(lease)s"
_HOLDERS = """
SELECT worker FROM quarry.slots WHERE pool = %(pool)s AND until > clock_timestamp() ORDER BY number LIMIT 1
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())::double precision"


class Lease:
    """A slot that is held until a time of this host's clock, which a renewal moves on."""

    def __init__(self, number: int, expires_at: float) -> None:
        self.number = number
        self.expires_at = expires_at

    @property
    def is_lost(self) -> bool:
        """True once another worker may be about to get the slot: what is done under it has to end."""
        return time.monotonic() >= self.expires_at


class LeaseState:
    """The shared state of the workers of a database; ``worker`` is this one's name. See :class:`SharedState`.

    ``sleep`` is the wait for a database that is away; it may raise Stopped. Use it as a context manager: it
    has connections, and a thread that renews its leases.
    """

    def __init__(self, url: str, worker: str, sleep: Sleep = time.sleep, *, seconds: float = 30.0) -> None:
        self._worker = worker
        self._sleep = sleep
        self._seconds = seconds
        self._pool = ConnectionPool(
            url,
            min_size=1,
            max_size=4,
            open=False,
            timeout=_RECONNECT_INTERVAL,
            # Its own tries come at growing intervals, the longest of which would pass after the absence.
            reconnect_timeout=_RECONNECT_INTERVAL,
            kwargs={"autocommit": True},
        )
        self._lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self._held: Counter[str] = Counter()
        self._queues: dict[str, threading.Lock] = {}
        self._holders: dict[str, tuple[float, str]] = {}
        #: The database's POSIX time less this host's monotonic one.
        self._offset = 0.0
        self.clock = Clock(self._now, self._now)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_leases, name="leases", daemon=True)

    def __enter__(self) -> LeaseState:
        self._pool.open()
        self._run(self._measure_clock)
        start_thread(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._pool.close()

    def _now(self) -> float:
        return time.monotonic() + self._offset

    @contextmanager
    def slot(self, pool: str, limit: int, sleep: Sleep) -> Iterator[Lease]:
        """Hold one of ``limit`` slots of a pool; sleep until one is free.

        A lease that was lost stays lost: see ``Lease.is_lost``.
        """
        lease = self._take(pool, limit, sleep)
        try:
            yield lease
        finally:
            self._give_back(pool, lease)

    def update(self, name: str, compute: Callable[[Numbers], tuple[Numbers, T]]) -> T:
        """Replace the numbers under a name; a commit in doubt is repeated, which does less, never more."""

        def work(connection: psycopg.Connection) -> T:
            with connection.transaction():
                # A name without numbers has no row to lock.
                connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"quarry {name}",)
                )
                found = connection.execute(
                    "SELECT numbers FROM quarry.numbers WHERE name = %s", (name,)
                ).fetchone()
                numbers, result = compute(tuple(found[0]) if found else ())
                connection.execute(
                    "INSERT INTO quarry.numbers VALUES (%s, %s)"
                    " ON CONFLICT (name) DO UPDATE SET numbers = EXCLUDED.numbers",
                    (name, list(numbers)),
                )
                return result

        return self._run(work)

    def read(self, name: str) -> Numbers:
        """Return the numbers under a name, as the last update left them."""

        def work(connection: psycopg.Connection) -> Numbers:
            found = connection.execute(
                "SELECT numbers FROM quarry.numbers WHERE name = %s", (name,)
            ).fetchone()
            return tuple(found[0]) if found else ()

        return self._run(work)

    def held_slots(self) -> Mapping[str, int]:
        """Return the number of slots that this worker holds, by pool."""
        with self._lock:
            return dict(self._held)

    def describe_holder(self, pool: str) -> str:
        """Return the worker that has the first slot of a pool, as a part of a sentence."""
        now = time.monotonic()
        seen_at, text = self._holders.get(pool, (float("-inf"), ""))
        if now - seen_at >= _HOLDER_SECONDS:
            found = self._run(lambda connection: connection.execute(_HOLDERS, {"pool": pool}).fetchone())
            text = f"the worker {found[0]} has a slot" if found else "a slot has just become free"
            self._holders[pool] = now, text
        return text

    def _take(self, pool: str, limit: int, sleep: Sleep) -> Lease:
        values = {"pool": pool, "limit": limit, "worker": self._worker, "seconds": self._seconds}
        # Of the threads that wait one queries the database.
        with self._lock:
            queue = self._queues.setdefault(pool, threading.Lock())
        while not queue.acquire(timeout=_POLL_INTERVAL):
            sleep(0.0)
        try:
            while True:
                started = time.monotonic()
                found = self._run(lambda connection: connection.execute(_TAKE, values).fetchone())
                if found:
                    lease = Lease(found[0], self._expiry(started))
                    with self._lock:
                        self._leases[lease.number] = lease
                        self._held[pool] += 1
                    return lease
                sleep(_POLL_INTERVAL)
        finally:
            queue.release()

    def _give_back(self, pool: str, lease: Lease) -> None:
        with self._lock:
            self._leases.pop(lease.number, None)
            self._held[pool] -= 1
        # A database that is away gives the slot to others when the lease has passed.
        with suppress(*_AWAY), self._pool.connection() as connection:
            connection.execute(_GIVE_BACK, {"pool": pool, "lease": lease.number})

    def _expiry(self, started: float) -> float:
        """Return the end of a lease that was granted or renewed by a request of this time."""
        return started + self._seconds - min(_MARGIN, self._seconds / 3)

    def _keep_leases(self) -> None:
        while not self._closing.wait(min(_RENEW_INTERVAL, self._seconds / 6)):
            try:
                self._renew()
            except (psycopg.Error, PoolTimeout) as error:
                _log.warning("leases were not renewed: %s", " ".join(str(error).split()))

    def _renew(self) -> None:
        started = time.monotonic()
        with self._lock:
            # Those that are taken meanwhile have an expiry of their own.
            before = list(self._leases.values())
        with self._pool.connection() as connection:
            self._measure_clock(connection)
            values = {"leases": [lease.number for lease in before], "seconds": self._seconds}
            found = connection.execute(_RENEW, values).fetchall()
        renewed = {number for (number,) in found}
        for lease in before:
            # A lease that was lost stays lost: its retrieval may have begun to be cancelled.
            if lease.number in renewed and not lease.is_lost:
                lease.expires_at = self._expiry(started)

    def _measure_clock(self, connection: psycopg.Connection) -> None:
        """Follow the database's clock, which all workers share; it never goes back."""
        before = time.monotonic()
        row = connection.execute(_NOW).fetchone()
        assert row is not None
        after = time.monotonic()
        offset = row[0] - (before + after) / 2
        # An answer that was long in coming says little about the time.
        if self._offset == 0.0 or after - before < 0.1:
            self._offset = offset

    def _run(self, work: Callable[[psycopg.Connection], T]) -> T:
        """Run work on a connection; wait for a database that is away."""
        while True:
            try:
                with self._pool.connection() as connection:
                    return work(connection)
            except _AWAY as error:
                _log.warning("the database of the limits does not answer: %s", type(error).__name__)
            self._sleep(_RECONNECT_INTERVAL)
