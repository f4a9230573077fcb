"""The course of a run: its threads from their start to their end, looked at from the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.errors import OperatorActionRequired
from dicom_quarry.extraction.inbound import InboundSink
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.workers import Workers
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.progress import ProgressMeter
from dicom_quarry.jobs.publisher import ProgressPublisher
from dicom_quarry.receiver.stats import ReceiverStats

#: Seconds between two looks at a running job.
POLL_INTERVAL = 0.25


@dataclass(frozen=True, slots=True)
class Engine:
    """What a run is done with, and where it is seen how it gets on; ``stats`` are the receiver's."""

    context: JobContext
    resolver: Resolver
    sink: InboundSink
    receiver_stats: Callable[[], ReceiverStats]
    progress_meter: ProgressMeter
    folder: JobFolder
    publisher: ProgressPublisher

    def run(self, parallel: int) -> OperatorActionRequired | None:
        """Run the threads, ``at_once`` of them for retrievals, to their end.

        Returns what a person has to do before the job can go on, if anything.
        """
        shutdown = self.context.shutdown
        has_more = True
        try:
            while has_more:
                workers = Workers(self.context, self.resolver, parallel=parallel)
                self._run_workers(workers)
                has_more = self._wait_for_late_work()
        except OperatorActionRequired as error:
            return error
        finally:
            shutdown.request()
            shutdown.request()
            for client in self.context.clients.values():
                client.archive.close()
            workers.wait()
            self.publisher.finish(self.folder)
        return None

    def _run_workers(self, workers: Workers) -> None:
        """Tell how the threads get on, to their end; raises the error that ended them."""
        workers.start()
        while workers.is_alive():
            workers.join(POLL_INTERVAL)
            snapshot = self.progress_meter.snapshot(
                *self.sink.totals, stopping=self.context.shutdown.requested
            )
            self.publisher.publish(snapshot, self.folder)
        workers.join(0.0)

    def _wait_for_late_work(self) -> bool:
        """Whether what came late has taken up a task again; where a sender is at work it is heard out."""
        ledger, shutdown = self.context.ledger, self.context.shutdown
        settle = max(client.profile.settle for client in self.context.clients.values())
        seen, since = self.receiver_stats().instances, time.monotonic()
        while (
            not shutdown.requested and not ledger.all_complete() and self.receiver_stats().open_associations
        ):
            if self.receiver_stats().instances != seen:
                seen, since = self.receiver_stats().instances, time.monotonic()
            if time.monotonic() - since >= settle:
                break
            time.sleep(POLL_INTERVAL)
        return not shutdown.requested and ledger.next_due() is not None
