"""How fast an archive is asked, and how many moves run at once after a refusal. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds ahead that a rate may be used up; more than that is of another boot, or of a slower rate.
_LONGEST = 60.0

#: Moves served in a row, or seconds without a refusal, after which one more at once is tried.
SERVED = 10
CALM = 600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Evenly spaced, so that no burst follows a pause.

    All that there is to remember is ``free_at``, the moment from which the next is due: a number that
    processes can share. Both steps return its new value, and how many seconds to wait.
    """

    per_second: float

    def take(self, free_at: float, now: float) -> tuple[float, float]:
        """Ask for one; it is granted where there is nothing to wait, and else to be asked for again."""
        free_at = self._believed(free_at, now)
        if free_at > now:
            return free_at, free_at - now
        return now + 1 / self.per_second, 0.0

    def charge(self, free_at: float, now: float, amount: float) -> tuple[float, float]:
        """Account for what has come already; whoever received it waits that long before it takes more."""
        free_at = max(self._believed(free_at, now), now) + amount / self.per_second
        return free_at, free_at - now

    def _believed(self, free_at: float, now: float) -> float:
        return min(free_at, now + max(_LONGEST, 1 / self.per_second))


class Throttle:
    """How many moves may run at once: half after a refusal, then slowly one more."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.allowed = ceiling
        self._served = 0
        self._halved = self._changed = float("-inf")

    def refused(self, began: float, now: float) -> bool:
        """A question put at ``began`` was refused; True if fewer are allowed from now on.

        Those that were asked before the last time say nothing new.
        """
        self._served = 0
        self._changed = now
        if began < self._halved:
            return False
        before, self.allowed = self.allowed, max(1, self.allowed // 2)
        self._halved = now
        return self.allowed < before

    def served(self) -> None:
        """A move was answered without a refusal."""
        self._served += 1

    def at_once(self, now: float) -> int:
        """How many may run now."""
        calm = now - self._changed >= CALM or self._served >= SERVED
        if self.allowed < self.ceiling and calm:
            self.allowed += 1
            self._served = 0
            self._changed = now
        return self.allowed
