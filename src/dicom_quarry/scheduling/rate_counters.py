"""The rate limits of an archive, each with its numbers in a shared state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.scheduling.rate_limit import RateLimiter
from dicom_quarry.scheduling.shared_state import Numbers, SharedState, Sleep

#: The name of the limits of this job alone.
OWN = "own"


@dataclass(frozen=True, slots=True)
class RateKind:
    """A kind of rate: its name, the limit on it, and its unit in amounts a second.

    ``period`` is the number of seconds over which its use is shown, ``of_unit`` their number of units.
    """

    name: str
    limit: Callable[[Limits], float | None]
    text: str
    unit: float = 1.0
    period: float = 60.0

    @property
    def of_unit(self) -> float:
        """The amount in a period at a rate of one unit."""
        return self.unit * self.period


QUERIES = RateKind("queries", lambda one: one.queries_per_second, "queries a second")
STUDIES = RateKind("studies", lambda one: one.studies_per_hour, "studies an hour", 1 / 3600, 3600.0)
BYTES = RateKind("bytes", lambda one: one.megabytes_per_second, "MB a second", 1e6)
KINDS = {kind.name: kind for kind in (QUERIES, STUDIES, BYTES)}


class RateRecord(NamedTuple):
    """The numbers of a rate: when the next request is due, and the amounts of this period and the last one.

    ``period`` is the number of this period, since the clock began.
    """

    free_at: float = 0.0
    period: float = 0.0
    amount: float = 0.0
    amount_before: float = 0.0

    @classmethod
    def of(cls, numbers: Numbers) -> RateRecord:
        """Return the record of stored numbers; an earlier version stored the first one alone."""
        return cls(*numbers[: len(cls._fields)])

    def at(self, period: float) -> RateRecord:
        """Return the record in a later period."""
        if period == self.period:
            return self
        before = self.amount if period == self.period + 1 else 0.0
        return self._replace(period=period, amount=0.0, amount_before=before)

    def used(self, now: float, seconds: float) -> float:
        """Return about how much the ``seconds`` of a period before ``now`` had."""
        period, share = divmod(now / seconds, 1)
        here = self.at(period)
        return here.amount + here.amount_before * (1 - share)


@dataclass(frozen=True, slots=True)
class RateCounter:
    """A rate limiter with the name of its numbers; ``is_own``: the limit is not the site's."""

    name: str
    is_own: bool
    kind: RateKind
    limiter: RateLimiter
    state: SharedState

    @property
    def origin(self) -> str:
        """The one who set the limit, for messages."""
        return "set for this archive" if self.is_own else "set by the site"

    def acquire(self, sleep: Sleep) -> None:
        """Wait until one request may start."""
        while wait := self._apply(self.limiter.try_acquire, lambda wait: 0.0 if wait else 1.0):
            sleep(wait)

    def debit(self, amount: float) -> float:
        """Take an amount that was received; return the seconds to wait before more."""
        return self._apply(partial(self.limiter.debit, amount=amount), lambda _: amount)

    def describe(self) -> dict[str, Any]:
        """Return the limit for the list of workers; and its use, if this process alone knows that."""
        allowed = self.limiter.per_second / self.kind.unit
        facts = {"name": self.name, "kind": self.kind.name, "allowed": allowed, "is_own": self.is_own}
        if self.is_own:
            record = RateRecord.of(self.state.read(self.name))
            facts["used"] = record.used(self.state.clock.monotonic(), self.kind.period) / self.kind.of_unit
        return facts

    def _apply(
        self, compute: Callable[[float, float], tuple[float, float]], amount: Callable[[float], float]
    ) -> float:
        """Compute the wait from the time and what is stored; add the amount of that wait to the use."""

        def change(numbers: Numbers) -> tuple[Numbers, float]:
            now = self.state.clock.monotonic()
            record = RateRecord.of(numbers).at(now // self.kind.period)
            free_at, wait = compute(record.free_at, now)
            return record._replace(free_at=free_at, amount=record.amount + amount(wait)), wait

        return self.state.update(self.name, change)


def build_counters(scopes: Sequence[tuple[str, SharedState, Limits]], kind: RateKind) -> list[RateCounter]:
    """Return the counters of one kind of limit, for the scopes that have it."""
    rates = [(name, state, kind.limit(limits)) for name, state, limits in scopes]
    return [
        RateCounter(f"{name}.{kind.name}", name == OWN, kind, RateLimiter(rate * kind.unit), state)
        for name, state, rate in rates
        if rate
    ]
