"""The facts about an archive that a worker gives the others: limits, window, and whether it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Self

from dicom_quarry.scheduling.throttle import ArchiveThrottle


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """An archive, as one worker sees it.

    ``state`` is the name of its record in the shared state, ``problem`` why it did not answer last.
    ``refusal`` is what a person has to solve before this worker can use it, found out at ``refused_at``, a
    POSIX time; empty if nothing.
    ``window_changes_at`` is the POSIX time at which the window closes, or opens. Of ``most_at_once``
    retrievals ``at_once`` may run now. ``pools`` are the sizes of the site's pools of slots; ``rates`` are as
    in :meth:`RateCounter.describe`.
    """

    address: str = ""
    state: str = ""
    problem: str = ""
    refusal: str = ""
    refused_at: float = 0.0
    has_window: bool = False
    is_open: bool = True
    window_changes_at: float | None = None
    at_once: int = 1
    most_at_once: int = 1
    pools: dict[str, int] | None = None
    rates: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, throttle: ArchiveThrottle, address: str, refusal: str = "", refused_at: float = 0.0) -> Self:
        """Return the facts of this moment."""
        now = datetime.fromtimestamp(throttle.clock.now(), UTC)
        is_open = throttle.schedule.is_open(now)
        changes = throttle.schedule.next_close(now) if is_open else throttle.schedule.next_open(now)
        return cls(
            address=address,
            state=throttle.archive_state.name,
            problem=throttle.archive_state.problem,
            refusal=refusal,
            refused_at=refused_at,
            has_window=throttle.has_window,
            is_open=is_open,
            window_changes_at=changes.timestamp() if changes else None,
            at_once=throttle.concurrency.current_limit,
            most_at_once=throttle.max_parallel,
            pools=dict(throttle.shared_slots),
            rates=tuple(counter.describe() for counter in throttle.rates),
        )

    @classmethod
    def parse(cls, values: object) -> Self:
        """Return the facts in the list of workers; another version may have others."""
        known = {one.name for one in fields(cls)}
        given = values if isinstance(values, dict) else {}
        return cls(**{name: value for name, value in given.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """Return the values for the list of workers."""
        return asdict(self)
