"""The course of a run: its threads from their start to their end, looked at from the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dicom_quarry.errors import Unusable
from dicom_quarry.extraction.inbound import JobSink
from dicom_quarry.extraction.job_context import Tools
from dicom_quarry.extraction.resolver import Resolver
from dicom_quarry.extraction.workers import Workers
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.progress import Meter
from dicom_quarry.jobs.publisher import Watching
from dicom_quarry.receiver.stats import Stats

#: Seconds between two looks at a running job.
TICK = 0.25


@dataclass(frozen=True, slots=True)
class Course:
    """What a run is done with, and where it is seen how it gets on; ``stats`` are the receiver's."""

    tools: Tools
    resolver: Resolver
    sink: JobSink
    stats: Callable[[], Stats]
    meter: Meter
    folder: JobFolder
    watching: Watching

    def run(self, at_once: int) -> Unusable | None:
        """Run the threads, ``at_once`` of them for retrievals, to their end.

        Returns what a person has to do before the job can go on, if anything.
        """
        stop = self.tools.stop
        again = True
        try:
            while again:
                workers = Workers(self.tools, self.resolver, parallel=at_once)
                self._watch(workers)
                again = self._more()
        except Unusable as error:
            return error
        finally:
            stop.request()
            stop.request()
            for source in self.tools.sources.values():
                source.archive.close()
            workers.wait()
            self.watching.over(self.folder)
        return None

    def _watch(self, workers: Workers) -> None:
        """Tell how the threads get on, to their end; raises the error that ended them."""
        workers.start()
        while workers.alive():
            workers.join(TICK)
            snapshot = self.meter.snapshot(*self.sink.totals, stopping=self.tools.stop.requested)
            self.watching.show(snapshot, self.folder)
        workers.join(0.0)

    def _more(self) -> bool:
        """Whether what came late has taken up a task again; where a sender is at work it is heard out."""
        ledger, stop = self.tools.ledger, self.tools.stop
        settle = max(source.profile.settle for source in self.tools.sources.values())
        seen, since = self.stats().instances, time.monotonic()
        while not stop.requested and not ledger.all_complete() and self.stats().associations:
            if self.stats().instances != seen:
                seen, since = self.stats().instances, time.monotonic()
            if time.monotonic() - since >= settle:
                break
            time.sleep(TICK)
        return not stop.requested and ledger.next_due() is not None
