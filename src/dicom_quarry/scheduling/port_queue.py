"""The port of a job's receiver: had at once, or in its turn after the jobs of this host that came earlier.

Whether a port is free the kernel alone says. Tickets tell people which job has it, and bring those that wait
into an order; what they say never keeps a job from a port that is free, if it does not want to queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.model import AE
from dicom_quarry.scheduling.port_registry import OwnPortEntry, PortEntry, PortRegistry
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.system.time_text import format_duration

#: Seconds between two looks at who is in front.
_POLL_INTERVAL = 0.25

#: Seconds in which the port of a job that has just ended, or was killed, becomes free.
_RELEASE_TIMEOUT = 2.0


class PortQueue:
    """A job's place at a port. ``shared`` is the folder in which the jobs of this host meet.

    ``queue``: wait for the port where another job has it; ``waits`` is told what for, several times a second.
    """

    def __init__(
        self,
        local: AE,
        out: Path,
        shared_folder: Path,
        shutdown: Shutdown,
        *,
        queue: bool,
        on_wait: Callable[[str], None],
    ) -> None:
        self._local = local
        self._out = out
        self._shared_folder = shared_folder
        self._shutdown = shutdown
        self._queue = queue
        self._on_wait = on_wait
        self._registry: PortRegistry | None = None
        self._own_entry: OwnPortEntry | None = None

    @contextmanager
    def acquire(self, listen: Callable[[], None]) -> Iterator[None]:
        """Have the port, taken by ``listen``, for as long as this lasts; others can see whose it is.

        Raises StartError, and Stopped if the job is stopped while it queues.
        """
        with ExitStack() as stack:
            try:
                self._registry = PortRegistry(self._shared_folder, self._local.port)
                self._registry.remove_stale()
                registration = self._registry.register(self._local.host, self._out, queued=self._queue)
                self._own_entry = stack.enter_context(registration)
            except (StartError, OSError):
                # Who does not want to queue needs nobody to know of it.
                if self._queue:
                    raise
            if self._queue:
                self._acquire_in_turn(listen)
            else:
                self._acquire_now(listen)
            yield

    def update_time_left(self, seconds_left: float | None) -> None:
        """Let those who wait know how long this job will need."""
        if self._own_entry is not None:
            self._own_entry.update(seconds_left=seconds_left)

    def _acquire_now(self, listen: Callable[[], None]) -> None:
        try:
            listen()
        except PortInUse as error:
            owner = _find_owner(self._competing_entries())
            if owner is None:
                raise
            raise StartError(
                f"port {self._local.port} is held by another job, {_describe(owner)}: "
                "start with --queue to run after it, or receive on another port"
            ) from error

    def _acquire_in_turn(self, listen: Callable[[], None]) -> None:
        assert self._own_entry is not None
        unknown_owner_since = None
        while True:
            others = self._competing_entries()
            earlier = sum(one.queued and one.number < self._own_entry.number for one in others)
            owner = _find_owner(
                [one for one in others if not one.queued or one.number < self._own_entry.number]
            )
            if not earlier:
                try:
                    listen()
                except PortInUse:
                    unknown_owner_since = None if owner else unknown_owner_since or time.monotonic()
                    if unknown_owner_since and time.monotonic() - unknown_owner_since > _RELEASE_TIMEOUT:
                        raise
                else:
                    self._own_entry.update(queued=False)
                    return
            self._on_wait(self._describe_wait(owner, earlier))
            self._shutdown.wait_unless_stopping(_POLL_INTERVAL)

    def _competing_entries(self) -> list[PortEntry]:
        """The living tickets of jobs that cannot listen beside this one."""
        if self._registry is None:
            return []
        own_number = self._own_entry.number if self._own_entry else 0
        hosts = {self._local.host, ""}
        return [
            one
            for one in self._registry.active()
            if one.number != own_number and (one.host in hosts or not self._local.host)
        ]

    def _describe_wait(self, owner: PortEntry | None, earlier: int) -> str:
        text = f"port {self._local.port}"
        if owner is not None:
            text += f", held by the job {_describe(owner)}"
        if earlier > 1 or (earlier and owner and not owner.queued):
            text += f"; queued before this one: {earlier}"
        return text


def _find_owner(candidates: list[PortEntry]) -> PortEntry | None:
    """Who has the port; a job that queued and has just got it may not have said so yet."""
    return min(candidates, key=lambda one: (one.queued, one.number), default=None)


def _describe(entry: PortEntry) -> str:
    process = f", process {entry.process}" if entry.process else ""
    left = f", {format_duration(entry.seconds_left)} left" if entry.seconds_left is not None else ""
    return f"{entry.folder} (user {entry.user}{process}{left})"
