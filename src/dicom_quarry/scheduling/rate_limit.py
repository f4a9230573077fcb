"""A rate limiter, and a concurrency limit that adapts to rejections. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

#: Largest number of seconds in advance for which a rate can be used up. A later time in a shared file is of a
#: slower rate, or of the time before a restart of the computer.
_MAX_AHEAD = 60.0

#: Successful retrievals in a row, or seconds without a rejection, before the limit grows by one.
SUCCESSES_BEFORE_INCREASE = 10
SECONDS_BEFORE_INCREASE = 600.0


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """A rate limiter that spaces requests evenly, so that no burst follows a pause (GCRA).

    Its state is one number, which processes can share: ``free_at``, the time at which the next request is
    due. Both methods return its new value and the seconds to wait.
    """

    per_second: float

    def try_acquire(self, free_at: float, now: float) -> tuple[float, float]:
        """Grant one request if the wait is 0 seconds; otherwise it has to be tried again after the wait."""
        free_at = self._clamp(free_at, now)
        if free_at > now:
            return free_at, free_at - now
        return now + 1 / self.per_second, 0.0

    def debit(self, free_at: float, now: float, amount: float) -> tuple[float, float]:
        """Take an amount that was received already; the receiver waits before it reads more."""
        free_at = max(self._clamp(free_at, now), now) + amount / self.per_second
        return free_at, free_at - now

    def _clamp(self, free_at: float, now: float) -> float:
        return min(free_at, now + max(_MAX_AHEAD, 1 / self.per_second))


class AdaptiveConcurrency:
    """A limit on concurrent retrievals: halved by a rejection, then slowly raised by one (AIMD)."""

    def __init__(self, max_limit: int) -> None:
        self.max_limit = max_limit
        self.current_limit = max_limit
        self._successes = 0
        self.halved_at = self._changed_at = float("-inf")

    def on_rejected(self, started_at: float, now: float) -> bool:
        """Record that a request started at ``started_at`` was rejected; return True if the limit fell.

        A request that started before the limit was last halved is no reason to halve it again.
        """
        self._successes = 0
        self._changed_at = now
        if started_at < self.halved_at:
            return False
        before, self.current_limit = self.current_limit, max(1, self.current_limit // 2)
        self.halved_at = now
        return self.current_limit < before

    def on_success(self) -> None:
        """Record a successful retrieval."""
        self._successes += 1

    def limit(self, now: float) -> int:
        """Return how many retrievals may run now."""
        may_increase = (
            now - self._changed_at >= SECONDS_BEFORE_INCREASE or self._successes >= SUCCESSES_BEFORE_INCREASE
        )
        if self.current_limit < self.max_limit and may_increase:
            self.current_limit += 1
            self._successes = 0
            self._changed_at = now
        return self.current_limit
