"""How fast an archive is asked, and how many moves run at once after a refusal. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds ahead that a rate may be used up; more than that is of another boot, or of a slower rate.
_MAX_AHEAD = 60.0

#: Moves served in a row, or seconds without a refusal, after which one more at once is tried.
SUCCESSES_BEFORE_INCREASE = 10
SECONDS_BEFORE_INCREASE = 600.0


@dataclass(frozen=True, slots=True)
class RateLimiter:
    """Evenly spaced, so that no burst follows a pause.

    All that there is to remember is ``free_at``, the moment from which the next is due: a number that
    processes can share. Both steps return its new value, and how many seconds to wait.
    """

    per_second: float

    def try_acquire(self, free_at: float, now: float) -> tuple[float, float]:
        """Ask for one; it is granted where there is nothing to wait, and else to be asked for again."""
        free_at = self._clamp(free_at, now)
        if free_at > now:
            return free_at, free_at - now
        return now + 1 / self.per_second, 0.0

    def debit(self, free_at: float, now: float, amount: float) -> tuple[float, float]:
        """Account for what has come already; whoever received it waits that long before it takes more."""
        free_at = max(self._clamp(free_at, now), now) + amount / self.per_second
        return free_at, free_at - now

    def _clamp(self, free_at: float, now: float) -> float:
        return min(free_at, now + max(_MAX_AHEAD, 1 / self.per_second))


class AdaptiveConcurrency:
    """How many moves may run at once: half after a refusal, then slowly one more."""

    def __init__(self, max_limit: int) -> None:
        self.max_limit = max_limit
        self.current_limit = max_limit
        self._successes = 0
        self._halved_at = self._changed_at = float("-inf")

    def on_rejected(self, started_at: float, now: float) -> bool:
        """A question put at ``began`` was refused; True if fewer are allowed from now on.

        Those that were asked before the last time say nothing new.
        """
        self._successes = 0
        self._changed_at = now
        if started_at < self._halved_at:
            return False
        before, self.current_limit = self.current_limit, max(1, self.current_limit // 2)
        self._halved_at = now
        return self.current_limit < before

    def on_success(self) -> None:
        """A move was answered without a refusal."""
        self._successes += 1

    def limit(self, now: float) -> int:
        """How many may run now."""
        may_increase = (
            now - self._changed_at >= SECONDS_BEFORE_INCREASE or self._successes >= SUCCESSES_BEFORE_INCREASE
        )
        if self.current_limit < self.max_limit and may_increase:
            self.current_limit += 1
            self._successes = 0
            self._changed_at = now
        return self.current_limit
