"""One round of questions for a task: put them, look on, and wait until nothing more is on its way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dicom_quarry.archive.base import Answered, Ask, Patience, Verdict, worst
from dicom_quarry.extraction.inbound import Delivery
from dicom_quarry.extraction.job_context import Source, Tools
from dicom_quarry.extraction.retry_policy import Round
from dicom_quarry.jobs.progress import Moving
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.model import Level, Listing, Road
from dicom_quarry.scheduling.throttle import Visit
from dicom_quarry.system.shutdown import Stop

#: How long stores may still come, in seconds, where the archive itself says that it sent nothing.
_NOTHING_SENT = 1.0

#: Pending responses that count nothing new are a sign of life for so many times the silence alone.
_TALK = 6


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a round. ``cut``: the window closed over it. ``gained`` counts late arrivals, too.

    ``repeated`` counts instances that came more than once.
    """

    road: Road
    level: Level
    answers: Sequence[Answered]
    attempts: Sequence[Attempt]
    gained: int
    cut: bool
    repeated: int = 0

    @property
    def round(self) -> Round:
        """The round as the policy sees it: its worst answer speaks."""
        speaker = worst(self.answers)
        return Round(self.level, speaker.verdict, self.gained, speaker.status, speaker.comment, self.road)


class Asking:
    """One round: ``ask``, then ``settle``."""

    def __init__(self, tools: Tools, source: Source, delivery: Delivery, moving: Moving) -> None:
        self._tools = tools
        self._source = source
        self._delivery = delivery
        self._moving = moving
        self._cut = False
        self._before = self._repeated = 0
        self._answers: list[Answered] = []
        self._attempts: list[Attempt] = []

    def ask(self, asks: Sequence[Ask], listing: Listing, *, again: bool) -> None:
        """Put the questions; ``again``: the study was asked for before. Raises ArchiveError and Stopped."""
        self._before, self._repeated = len(self._delivery.receipts), self._delivery.repeated
        for ask in asks:
            self._tools.room.wait()
            answered, attempt = self._ask(ask, listing, again=again or bool(self._answers))
            self._answers.append(answered)
            self._attempts.append(attempt)
            if _ends_round(answered, attempt.gained):
                break

    def settle(self, ask: Ask, listing: Listing) -> Asked:
        """Wait until nothing more is on its way; what came of the round, which ``ask`` stands for."""
        if ask.road is Road.MOVE:
            self._wait(listing)
        gained = len(self._delivery.receipts) - self._before
        repeated = self._delivery.repeated - self._repeated
        return Asked(ask.road, ask.level, self._answers, self._counted(gained), gained, self._cut, repeated)

    def _ask(self, ask: Ask, listing: Listing, *, again: bool) -> tuple[Answered, Attempt]:
        tools, source, delivery = self._tools, self._source, self._delivery
        started, before = time.time(), len(delivery.receipts)

        def retrieve() -> Answered:
            nonlocal started
            with source.guest.before_study(again=again) as visit:
                started = time.time()
                watch = _Watch(delivery, self._moving, source.profile.silence, tools.stop, visit)
                answered = visit.answered(source.archive.retrieve(ask, tools.sink, watch))
                self._cut = watch.cut and answered.verdict in (Verdict.CANCELLED, Verdict.LOST)
                return answered

        answered = source.gate.call(retrieve)
        return answered, Attempt(
            started=started,
            ended=time.time(),
            road=ask.road,
            level=ask.level,
            asked=len(ask.sop_uids) or len(listing.instances) or listing.count or 0,
            gained=len(delivery.receipts) - before,
            verdict=answered.verdict,
            status=answered.status,
            # Of a success there is nothing to say, and a ledger has many.
            comment="" if answered.verdict is Verdict.SUCCESS else answered.comment,
        )

    def _counted(self, gained: int) -> list[Attempt]:
        """The attempts to remember; what came after the last answer is counted to that."""
        attempts = self._attempts
        if self._tools.stop.urgent or self._cut:
            # What was cancelled on this side is not held against the archive.
            attempts = [one for one in attempts if one.verdict not in (Verdict.CANCELLED, Verdict.LOST)]
        if not attempts:
            return attempts
        late = gained - sum(one.gained for one in attempts)
        return [*attempts[:-1], replace(attempts[-1], gained=attempts[-1].gained + late)]

    def _wait(self, listing: Listing) -> None:
        """Stores may arrive after the final response: wait while they do, and a while longer.

        Not when everything listed is here, nor when the archive itself says that the rest failed.
        """
        delivery, answers = self._delivery, self._answers
        listed = {ref.sop_uid for ref in listing.instances}
        failed = sum(answer.failed or 0 for answer in answers)
        sent_nothing = all(answer.completed == 0 for answer in answers)
        patience = min(self._source.profile.settle, _NOTHING_SENT if sent_nothing else float("inf"))
        done = time.monotonic()
        while not self._tools.stop.urgent:
            self._moving.stored = len(delivery.receipts)
            lacking = len(listed) - sum(1 for uid in listed if uid in delivery.receipts)
            if (listed and not lacking) or (failed and lacking <= failed):
                return
            quiet_for = time.monotonic() - max(done, delivery.last_arrival)
            if quiet_for >= patience:
                return
            delivery.wait(min(0.5, patience - quiet_for))


class _Watch:
    """Looks on while a retrieval runs: responses and arriving instances are signs of life."""

    def __init__(self, delivery: Delivery, moving: Moving, silence: float, stop: Stop, visit: Visit) -> None:
        self.cut = False
        self._delivery = delivery
        self._moving = moving
        self._silence = silence
        self._stop = stop
        self._visit = visit
        self._last = self._progress = time.monotonic()
        self._counted: tuple[int | None, int | None] = (None, None)

    def sign_of_life(self, completed: int | None, remaining: int | None) -> None:
        self._last = time.monotonic()
        if (completed, remaining) != self._counted:
            self._counted = completed, remaining
            self._progress = self._last
        self._moving.stored = len(self._delivery.receipts)

    def patience(self) -> Patience:
        self._moving.stored = len(self._delivery.receipts)
        self.cut = self.cut or self._visit.over
        if self._stop.urgent or self.cut or self._delivery.excluded:
            return Patience.CANCEL
        now, arrived = time.monotonic(), self._delivery.last_arrival
        quiet = now - max(self._last, arrived) > self._silence
        idle = now - max(self._progress, arrived) > _TALK * self._silence
        return Patience.ABORT if quiet or idle else Patience.WAIT


def _ends_round(answered: Answered, gained: int) -> bool:
    """True if it is no use, or no kindness, to put the other questions of the round."""
    if answered.verdict is Verdict.RETRY:
        return not gained
    return answered.verdict in (Verdict.LOST, Verdict.CONFIGURATION, Verdict.CANCELLED)
