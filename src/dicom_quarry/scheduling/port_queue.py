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
from dicom_quarry.scheduling.port_registry import OwnTicket, Ticket, Tickets
from dicom_quarry.system.shutdown import Stop
from dicom_quarry.system.time_text import spoken_time

#: Seconds between two looks at who is in front.
_POLL = 0.25

#: Seconds in which the port of a job that has just ended, or was killed, becomes free.
_GRACE = 2.0


class Berth:
    """A job's place at a port. ``shared`` is the folder in which the jobs of this host meet.

    ``queue``: wait for the port where another job has it; ``waits`` is told what for, several times a second.
    """

    def __init__(
        self, local: AE, out: Path, shared: Path, stop: Stop, *, queue: bool, waits: Callable[[str], None]
    ) -> None:
        self._local = local
        self._out = out
        self._shared = shared
        self._stop = stop
        self._queue = queue
        self._waits = waits
        self._tickets: Tickets | None = None
        self._mine: OwnTicket | None = None

    @contextmanager
    def taken(self, listen: Callable[[], None]) -> Iterator[None]:
        """Have the port, taken by ``listen``, for as long as this lasts; others can see whose it is.

        Raises StartError, and Stopped if the job is stopped while it queues.
        """
        with ExitStack() as held:
            try:
                self._tickets = Tickets(self._shared, self._local.port)
                self._tickets.sweep()
                drawn = self._tickets.drawn(self._local.host, self._out, queued=self._queue)
                self._mine = held.enter_context(drawn)
            except (StartError, OSError):
                # Who does not want to queue needs nobody to know of it.
                if self._queue:
                    raise
            if self._queue:
                self._in_turn(listen)
            else:
                self._at_once(listen)
            yield

    def tell(self, seconds_left: float | None) -> None:
        """Let those who wait know how long this job will need."""
        if self._mine is not None:
            self._mine.tell(seconds_left=seconds_left)

    def _at_once(self, listen: Callable[[], None]) -> None:
        try:
            listen()
        except PortInUse as error:
            holder = _holder(self._others())
            if holder is None:
                raise
            raise StartError(
                f"port {self._local.port} is held by another job, {_spoken(holder)}: "
                "start with --queue to run after it, or receive on another port"
            ) from error

    def _in_turn(self, listen: Callable[[], None]) -> None:
        assert self._mine is not None
        strange_since = None
        while True:
            others = self._others()
            earlier = sum(one.queued and one.number < self._mine.number for one in others)
            holder = _holder([one for one in others if not one.queued or one.number < self._mine.number])
            if not earlier:
                try:
                    listen()
                except PortInUse:
                    strange_since = None if holder else strange_since or time.monotonic()
                    if strange_since and time.monotonic() - strange_since > _GRACE:
                        raise
                else:
                    self._mine.tell(queued=False)
                    return
            self._waits(self._behind(holder, earlier))
            self._stop.wait(_POLL)

    def _others(self) -> list[Ticket]:
        """The living tickets of jobs that cannot listen beside this one."""
        if self._tickets is None:
            return []
        mine = self._mine.number if self._mine else 0
        hosts = {self._local.host, ""}
        return [
            one
            for one in self._tickets.living()
            if one.number != mine and (one.host in hosts or not self._local.host)
        ]

    def _behind(self, holder: Ticket | None, earlier: int) -> str:
        text = f"port {self._local.port}"
        if holder is not None:
            text += f", held by the job {_spoken(holder)}"
        if earlier > 1 or (earlier and holder and not holder.queued):
            text += f"; queued before this one: {earlier}"
        return text


def _holder(candidates: list[Ticket]) -> Ticket | None:
    """Who has the port; a job that queued and has just got it may not have said so yet."""
    return min(candidates, key=lambda one: (one.queued, one.number), default=None)


def _spoken(ticket: Ticket) -> str:
    process = f", process {ticket.process}" if ticket.process else ""
    left = f", {spoken_time(ticket.seconds_left)} left" if ticket.seconds_left is not None else ""
    return f"{ticket.folder} (user {ticket.user}{process}{left})"
