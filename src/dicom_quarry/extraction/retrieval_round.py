"""One retrieval round of a task: send the requests, watch their progress, and wait for late instances."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, RetrieveResult, Verdict, worst_result
from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.inbound import InboundStudy
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.refusals import Refusal
from dicom_quarry.extraction.task_snapshot import Round, may_concern_request
from dicom_quarry.jobs.progress import ActiveStudy
from dicom_quarry.ledger.ledger import Attempt
from dicom_quarry.model import InstanceInfo, Level, Listing, Sink, Transport, Writer
from dicom_quarry.scheduling.throttle import RetrievalPermit
from dicom_quarry.system.shutdown import Shutdown

#: Seconds to wait for late instances where the archive reports that it sent nothing.
_NOTHING_SENT_WAIT = 1.0

#: Pending responses with unchanged counters keep a retrieval alive for this multiple of the silence limit.
_IDLE_FACTOR = 6


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The result of a round.

    ``newly_stored`` includes late instances; ``repeated`` counts instances that arrived more than once.
    ``interrupted_by`` is why this job cancelled the round, to go on with it later; empty if it did not.
    ``series_uids`` are the series that were requested whole. ``refusal`` is why our own receiver did not take
    instances.
    """

    transport: Transport
    level: Level
    results: Sequence[RetrieveResult]
    attempts: Sequence[Attempt]
    newly_stored: int
    interrupted_by: str
    repeated: int = 0
    series_uids: frozenset[str] = frozenset()
    refusal: Refusal | None = None

    @property
    def round(self) -> Round:
        """The round as the retry policy needs it, with its worst result."""
        worst = worst_result(self.results)
        return Round(
            self.level,
            worst.verdict,
            self.newly_stored,
            worst.status,
            worst.comment,
            self.transport,
            worst.retry_after,
            frozenset[str]().union(*(one.refused_classes for one in self.results)),
            self.series_uids,
            self.refusal,
        )


class RetrievalRound:
    """One round: call ``retrieve``, then ``wait_for_late_stores``."""

    def __init__(
        self, context: JobContext, client: ArchiveClient, inbound: InboundStudy, active_study: ActiveStudy
    ) -> None:
        self._context = context
        self._client = client
        self._inbound = inbound
        self._active_study = active_study
        self._cancelled = False
        self._interrupted_by = ""
        self._stored_before = self._repeated_before = 0
        self._started = time.monotonic()
        self._results: list[RetrieveResult] = []
        self._attempts: list[Attempt] = []
        self._series_uids: set[str] = set()

    def retrieve(self, requests: Sequence[RetrieveRequest], listing: Listing, *, is_repeat: bool) -> None:
        """Send the requests; ``is_repeat``: an earlier round was for the same study.

        Raises ArchiveError and Stopped.
        """
        self._stored_before, self._repeated_before = len(self._inbound.receipts), self._inbound.repeated
        if not is_repeat:
            self._context.room.wait()
        for request in requests:
            self._context.disk_space.wait_for_space()
            if request.level is Level.SERIES:
                self._series_uids.update(request.series_uids)
            result, attempt = self._retrieve(request, listing, is_repeat=is_repeat or bool(self._results))
            self._results.append(result)
            self._attempts.append(attempt)
            if self._ends_round(request.transport, result, attempt.newly_stored):
                break

    def wait_for_late_stores(self, request: RetrieveRequest, listing: Listing) -> RoundResult:
        """Wait until no more instances arrive; return the result of the round that began with ``request``."""
        if request.transport is Transport.MOVE:
            self._wait_for_stores(listing)
        newly_stored = len(self._inbound.receipts) - self._stored_before
        refusal = self._find_refusal(listing, self._started)
        repeated = self._inbound.repeated - self._repeated_before
        return RoundResult(
            request.transport,
            request.level,
            self._results,
            self._recordable_attempts(newly_stored, refusal),
            newly_stored,
            self._interrupted_by,
            repeated,
            frozenset(self._series_uids),
            refusal,
        )

    def _find_refusal(self, listing: Listing, since: float) -> Refusal | None:
        """Return why our receiver refused missing instances; a refused sender counts if nothing arrived."""
        stored = self._inbound.receipts
        missing = {ref.sop_uid for ref in listing.instances if ref.sop_uid not in stored}
        has_new = len(stored) > self._stored_before
        if not missing and (listing.instances or has_new):
            return None
        refusal = self._context.sink.refusals.find(missing, since)
        return None if refusal and refusal.is_of_sender and has_new else refusal

    def _retrieve(
        self, request: RetrieveRequest, listing: Listing, *, is_repeat: bool
    ) -> tuple[RetrieveResult, Attempt]:
        context, client, inbound = self._context, self._client, self._inbound
        started, before = time.time(), len(inbound.receipts)

        def run_request() -> RetrieveResult:
            nonlocal started
            with client.throttle.acquire_retrieval(is_repeat=is_repeat) as permit:
                started = time.time()
                monitor = _Monitor(
                    inbound,
                    self._active_study,
                    client.profile.silence,
                    context.queries.shutdown,
                    permit,
                    has_received=lambda: self._has_received(request.transport),
                )
                sent = time.monotonic()
                sink = _TaskSink(context.sink, inbound.task.task_id)
                result = client.archive.retrieve(request, sink, monitor)
                if self._find_refusal(listing, sent) is None:
                    permit.record_result(result)
                self._cancelled = monitor.cancelled
                if result.verdict in (Verdict.CANCELLED, Verdict.LOST):
                    self._interrupted_by = monitor.interrupted_by
                return result

        result = client.circuit_breaker.call(run_request)
        return result, Attempt(
            started=started,
            ended=time.time(),
            transport=request.transport,
            level=request.level,
            requested=len(request.sop_uids) or len(listing.instances) or listing.count or 0,
            newly_stored=len(inbound.receipts) - before,
            verdict=result.verdict,
            status=result.status,
            # The comment of a success is of no use, and a ledger has many.
            comment="" if result.verdict is Verdict.SUCCESS else result.comment,
        )

    def _has_received(self, transport: Transport) -> bool:
        """Return True if an instance has come by this transport, in this round or before."""
        is_proven = transport in self._client.transport_selector.proven
        return is_proven or len(self._inbound.receipts) > self._stored_before

    def _ends_round(self, transport: Transport, result: RetrieveResult, newly_stored: int) -> bool:
        """Return True if the other requests would fail, too, or put more load on a busy archive."""
        if result.verdict is Verdict.CANCELLED:
            return self._cancelled
        if result.verdict is Verdict.RETRY and newly_stored:
            return False
        return not may_concern_request(result, is_proven=self._has_received(transport))

    def _recordable_attempts(self, newly_stored: int, refusal: Refusal | None) -> list[Attempt]:
        """Return the attempts for the ledger; late instances and a refusal are added to the last one."""
        attempts = self._attempts
        if self._context.queries.shutdown.cancel_requested or self._interrupted_by:
            # A retrieval that Quarry cancelled is no failure of the archive.
            attempts = [one for one in attempts if one.verdict not in (Verdict.CANCELLED, Verdict.LOST)]
        if not attempts:
            return attempts
        late = newly_stored - sum(one.newly_stored for one in attempts)
        last = replace(attempts[-1], newly_stored=attempts[-1].newly_stored + late)
        if refusal is not None:
            why = f"Quarry's receiver refused it: {refusal.reason}. {last.comment}"
            last = replace(last, comment=why.strip())
        return [*attempts[:-1], last]

    def _wait_for_stores(self, listing: Listing) -> None:
        """Wait while instances arrive after the final response, and for the settle time after the last one.

        Returns at once when every listed instance is stored, or the archive reports that the others failed.
        """
        inbound, results = self._inbound, self._results
        listed = {ref.sop_uid for ref in listing.instances}
        failed = sum(result.failed or 0 for result in results)
        sent_nothing = all(
            result.completed == 0
            or (result.completed is None and result.verdict in (Verdict.RETRY, Verdict.CONFIGURATION))
            for result in results
        )
        quiet_limit = min(self._client.profile.settle, _NOTHING_SENT_WAIT if sent_nothing else float("inf"))
        done = time.monotonic()
        while not self._context.queries.shutdown.cancel_requested:
            self._active_study.stored = len(inbound.receipts)
            lacking = len(listed) - sum(1 for uid in listed if uid in inbound.receipts)
            if (listed and not lacking) or (failed and lacking <= failed):
                return
            quiet_for = time.monotonic() - max(done, inbound.last_arrival)
            if quiet_for >= quiet_limit:
                return
            inbound.wait(min(0.5, quiet_limit - quiet_for))


class _TaskSink:
    """A sink of instances that come over the connection of a task's own request (C-GET, WADO-RS)."""

    def __init__(self, sink: Sink, task_id: int) -> None:
        self._sink = sink
        self._task_id = task_id

    def begin(self, arrival: InstanceInfo) -> Writer:
        return self._sink.begin(replace(arrival, task_id=self._task_id))


class _Monitor:
    """Monitor of a retrieval: it ends one that has neither responses nor arriving instances."""

    def __init__(
        self,
        inbound: InboundStudy,
        active_study: ActiveStudy,
        silence_timeout: float,
        shutdown: Shutdown,
        permit: RetrievalPermit,
        *,
        has_received: Callable[[], bool],
    ) -> None:
        self.has_received = has_received
        self.cancelled = False
        self.interrupted_by = ""
        self._inbound = inbound
        self._active_study = active_study
        self._silence_timeout = silence_timeout
        self._shutdown = shutdown
        self._permit = permit
        self._last_activity: float | None = None
        self._last_progress = 0.0
        self._last_counters: tuple[int | None, int | None] = (None, None)

    def on_request(self, message_id: int) -> None:
        self._inbound.move_ids.add(message_id)

    def on_activity(self, completed: int | None, remaining: int | None) -> None:
        self._last_activity = time.monotonic()
        if (completed, remaining) != self._last_counters:
            self._last_counters = completed, remaining
            self._last_progress = self._last_activity
        self._active_study.stored = len(self._inbound.receipts)

    def next_action(self) -> MonitorAction:
        if self._last_activity is None:
            # A retrieval may have waited for an association before its request was sent.
            self._last_activity = self._last_progress = time.monotonic()
        self._active_study.stored = len(self._inbound.receipts)
        self.interrupted_by = self.interrupted_by or self._permit.ended_by
        if self._shutdown.cancel_requested or self.interrupted_by or self._inbound.exclusion:
            self.cancelled = True
            return MonitorAction.CANCEL
        now, arrived = time.monotonic(), self._inbound.last_arrival
        quiet = now - max(self._last_activity, arrived) > self._silence_timeout
        idle = now - max(self._last_progress, arrived) > _IDLE_FACTOR * self._silence_timeout
        return MonitorAction.ABORT if quiet or idle else MonitorAction.WAIT
