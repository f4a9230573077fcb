"""Good manners towards an archive: the window, the rates, the ceilings; passed before anything is asked.

An archive's own limits hold for one job, the site's for all jobs of the host together. What is here decides
*when* something may be asked; what to ask, and whether again, is decided elsewhere (policy, gate).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import and_
from typing import Protocol

from dicom_quarry.archive.base import Answered, Verdict
from dicom_quarry.config.settings import ArchiveProfile, Limits
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.progress import Board
from dicom_quarry.scheduling.rate_limit import Pace, Throttle
from dicom_quarry.scheduling.shared_state import OwnNumbers, SharedFolder
from dicom_quarry.system.shutdown import Stop, Stopped

#: Out of resources, in one way or another (PS3.4 C.4.2.1.5): fewer moves at once may be what it needs.
_BUSY = frozenset({0xA700, 0xA701, 0xA702})

#: Longest uninterrupted wait in seconds; the host's clock may be set meanwhile.
_NAP = 60.0

#: Seconds between two looks at whether one more of the job's own moves may begin.
_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Clock:
    """``now`` is the time of day, ``tick`` never jumps and is the same in all processes."""

    now: Callable[[], float] = time.time
    tick: Callable[[], float] = time.monotonic


class _Numbers(Protocol):
    def update(self, name: str, step: Callable[[float], tuple[float, float]]) -> float: ...


@dataclass(frozen=True, slots=True)
class _Meter:
    name: str
    pace: Pace
    numbers: _Numbers
    tick: Callable[[], float]

    def take(self, pause: Callable[[float], None]) -> None:
        while wait := self.numbers.update(self.name, lambda due: self.pace.take(due, self.tick())):
            pause(min(wait, _NAP))

    def charge(self, amount: float) -> float:
        return self.numbers.update(self.name, lambda due: self.pace.charge(due, self.tick(), amount))


class Visit:
    """One move, from the moment at which it may begin."""

    def __init__(self, guest: Guest, stays_until: float) -> None:
        self._guest = guest
        self._stays_until = stays_until
        self._began = guest.clock.tick()

    @property
    def over(self) -> bool:
        """The window closed, and what was granted after that has passed."""
        return self._guest.clock.now() >= self._stays_until and not self._guest.is_open

    def answered(self, answer: Answered) -> Answered:
        """Learn from the archive's answer how much it takes at once."""
        busy = answer.status in _BUSY or answer.retry_after is not None
        if busy or answer.verdict is Verdict.LOST:
            # Some archives die of several moves at once instead of refusing them.
            self._guest.refused(self._began)
        elif answer.verdict in (Verdict.SUCCESS, Verdict.WARNING):
            self._guest.served()
        return answer


class Guest:
    """Shared by the threads of a job.

    ``own`` are the limits of the archive's profile, ``site`` those of the site by the name under which they
    are counted in the ``shared`` folder; ``at_once`` is how many moves the user wants. Raises ConfigError if
    the windows have no hour in common.
    """

    def __init__(
        self,
        own: Limits,
        site: Mapping[str, Limits],
        *,
        at_once: int,
        shared: SharedFolder | None,
        stop: Stop,
        board: Board,
        clock: Clock = Clock(),
    ) -> None:
        everyone = [own, *site.values()]
        self.clock = clock
        self._stop = stop
        self._board = board
        self._hours = reduce(and_, (limits.hours for limits in everyone))
        self._overtime = min(limits.overtime for limits in everyone)
        self._throttle = Throttle(min([at_once, *(one.parallel for one in everyone if one.parallel)]))
        self._shared = shared
        # An archive's slots before the host's: who waits for an archive must not keep others from another.
        self._pools = [(name, one.parallel) for name, one in reversed(list(site.items())) if one.parallel]
        sources: list[tuple[str, _Numbers, Limits]] = [("own", OwnNumbers(), own)]
        sources += [(name, shared, limits) for name, limits in site.items() if shared]
        self._queries = self._meters(sources, "queries", lambda one: one.queries_per_second)
        self._studies = self._meters(sources, "studies", lambda one: one.studies_per_hour, unit=1 / 3600)
        self._bytes = self._meters(sources, "bytes", lambda one: one.megabytes_per_second, unit=1e6)
        self._lock = threading.Lock()
        self._moving = 0
        self._announcing = threading.Lock()
        self._asked = threading.local()
        if self._hours.next_open(self._now()) is None:
            raise ConfigError("the archive could never be asked: its windows have no hour in common")

    @property
    def ceiling(self) -> int:
        """The largest number of moves at once."""
        return self._throttle.ceiling

    @property
    def limits_bytes(self) -> bool:
        """Whether ``received`` wants to be told."""
        return bool(self._bytes)

    @property
    def is_open(self) -> bool:
        """Whether the archive may be asked now."""
        return self._hours.is_open(self._now())

    @property
    def queries(self) -> int:
        """How many queries the calling thread has put so far."""
        return getattr(self._asked, "queries", 0)

    def wait_until_open(self) -> None:
        """Return inside the window; raises Stopped."""
        if self.is_open:
            return
        if not self._announcing.acquire(blocking=False):
            self._sleep_until_open()
            return
        try:
            opens = self._hours.next_open(self._now())
            until = self._hours.spoken(opens) if opens else "it opens"
            self._board.say(f"outside the window: waiting until {until}")
            with self._board.waiting(f"the window, until {until}"):
                self._sleep_until_open()
            self._board.say("inside the window again")
        finally:
            self._announcing.release()

    def before_query(self) -> None:
        """Return when a query may be put; raises Stopped. For every C-FIND, also of a list that has begun."""
        for meter in self._queries:
            meter.take(self._stop.pause)
        self._asked.queries = self.queries + 1

    @contextmanager
    def before_study(self, *, again: bool = False) -> Iterator[Visit]:
        """Enter when a move may begin, and hold its slot; raises Stopped.

        ``again``: it is for more of a study that has been counted.
        """
        with ExitStack() as held:
            while True:
                self.wait_until_open()
                held.enter_context(self._slot())
                for meter in () if again else self._studies:
                    meter.take(self._queue)
                if self.is_open:
                    break
                held.close()
            yield Visit(self, self._stays_until())

    def received(self, size: int) -> None:
        """So many bytes have come: hold their sender up, by not reading on, until they were due."""
        wait = max((meter.charge(size) for meter in self._bytes), default=0.0)
        # Who receives has nothing to do with the stop: what is in flight ends by other ways.
        with suppress(Stopped):
            self._stop.pause(wait)

    def refused(self, began: float) -> None:
        """The archive refused what was asked at ``began`` (``clock.tick``) for want of resources."""
        with self._lock:
            fewer = self._throttle.refused(began, self.clock.tick())
            allowed = self._throttle.allowed
        if fewer:
            self._board.say(f"the archive is busy: no more than {allowed} at once for a while")

    def served(self) -> None:
        """The archive did what a move asked for."""
        with self._lock:
            self._throttle.served()

    def _meters(
        self,
        sources: list[tuple[str, _Numbers, Limits]],
        what: str,
        rate_of: Callable[[Limits], float | None],
        unit: float = 1.0,
    ) -> list[_Meter]:
        rates = [(name, numbers, rate_of(limits)) for name, numbers, limits in sources]
        return [
            _Meter(f"{name}.{what}", Pace(rate * unit), numbers, self.clock.tick)
            for name, numbers, rate in rates
            if rate
        ]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def _stays_until(self) -> float:
        closes = self._hours.next_close(self._now()) if self._overtime < float("inf") else None
        return closes.timestamp() + self._overtime if closes else float("inf")

    def _sleep_until_open(self) -> None:
        opens = self._hours.next_open(self._now())
        while not self.is_open:
            left = opens.timestamp() - self.clock.now() if opens else _NAP
            self._stop.wait(min(left, _NAP) if left > 0 else _NAP)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        while not self._enter():
            self._stop.wait(_POLL)
        try:
            with ExitStack() as held:
                for name, ceiling in self._pools:
                    if self._shared and ceiling:
                        held.enter_context(self._shared.slot(name, ceiling, self._queue))
                yield
        finally:
            with self._lock:
                self._moving -= 1

    def _enter(self) -> bool:
        with self._lock:
            allowed = self._moving < self._throttle.at_once(self.clock.tick())
            self._moving += allowed
            return allowed

    def _queue(self, seconds: float) -> None:
        with self._board.waiting("its turn: this archive's rate, or the site's, is used up"):
            self._stop.wait(seconds)


def guest_of(profile: ArchiveProfile, parallel: int, policy: SitePolicy, stop: Stop, board: Board) -> Guest:
    """The guest that an archive and the site want; raises ConfigError, or StartError."""
    site = policy.limits(profile)
    together = any(
        one.parallel or one.queries_per_second or one.studies_per_hour or one.megabytes_per_second
        for one in site.values()
    )
    shared = SharedFolder(policy.shared) if together else None
    return Guest(profile, site, at_once=parallel, shared=shared, stop=stop, board=board)
