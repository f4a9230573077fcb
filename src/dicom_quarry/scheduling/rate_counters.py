"""The rate limits of an archive, each with its number in a shared state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dicom_quarry.config.settings import Limits
from dicom_quarry.scheduling.rate_limit import RateLimiter
from dicom_quarry.scheduling.shared_state import Numbers, SharedState, Sleep

#: The name of the limits of this job alone.
OWN = "own"


@dataclass(frozen=True, slots=True)
class RateCounter:
    """A rate limiter with the name of its number; ``origin`` describes who set it, for messages."""

    name: str
    origin: str
    limiter: RateLimiter
    state: SharedState

    def acquire(self, sleep: Sleep) -> None:
        """Wait until one request may start."""
        while wait := self.state.update(self.name, partial(_apply, self._try_acquire)):
            sleep(wait)

    def debit(self, amount: float) -> float:
        """Take an amount that was received; return the seconds to wait before more."""
        return self.state.update(self.name, partial(_apply, partial(self._debit, amount)))

    def _try_acquire(self, free_at: float) -> tuple[float, float]:
        return self.limiter.try_acquire(free_at, self.state.clock.monotonic())

    def _debit(self, amount: float, free_at: float) -> tuple[float, float]:
        return self.limiter.debit(free_at, self.state.clock.monotonic(), amount)


def _apply(compute: Callable[[float], tuple[float, float]], numbers: Numbers) -> tuple[Numbers, float]:
    free_at, wait = compute(numbers[0] if numbers else 0.0)
    return (free_at,), wait


def build_counters(
    scopes: Sequence[tuple[str, SharedState, Limits]],
    what: str,
    rate_of: Callable[[Limits], float | None],
    unit: float = 1.0,
) -> list[RateCounter]:
    """Return the counters of one kind of limit, for the scopes that have it; ``unit`` is in seconds."""
    rates = [(name, state, rate_of(limits)) for name, state, limits in scopes]
    return [
        RateCounter(
            f"{name}.{what}",
            "set for this archive" if name == OWN else "set by the site",
            RateLimiter(rate * unit),
            state,
        )
        for name, state, rate in rates
        if rate
    ]
