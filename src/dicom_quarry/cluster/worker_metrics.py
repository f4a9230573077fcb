"""The numbers of a worker: what it has done since its start, and its file for Prometheus."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.worker import JobSinks
from dicom_quarry.reporting.prometheus import Metric, render_metrics, write_metrics
from dicom_quarry.system.service_loop import LoopGuard, start_thread
from dicom_quarry.version import __version__

_log = logging.getLogger(__name__)

#: Seconds between two files.
_INTERVAL = 1.0


@dataclass(slots=True)
class WorkerCounts:
    """The work of a worker since its start, and now; for any thread.

    ``tokens`` are in work, by queue; ``studies`` have an outcome, by archive, ``postponements`` not yet.
    ``errors`` are the times that an archive, or a job, was left to the other workers. ``contact_at`` is the
    POSIX time of the last contact with the database; ``limits`` are the tokens at once by queue, and
    ``available`` has the archives that answer, as they were then.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    studies: Counter[str] = field(default_factory=Counter)
    postponements: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    contact_at: float = 0.0
    limits: Mapping[str, int] = field(default_factory=dict)
    available: Mapping[str, bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def token(self, queue: str) -> Iterator[None]:
        """Count a token of a queue as in work while the context lasts."""
        self._add(self.tokens, queue, 1)
        try:
            yield
        finally:
            self._add(self.tokens, queue, -1)

    def add_study(self, archive: str, *, is_concluded: bool) -> None:
        """Count a study that was worked on."""
        self._add(self.studies if is_concluded else self.postponements, archive, 1)

    def add_error(self, kind: str) -> None:
        """Count an archive, or a job, that is left to the others."""
        self._add(self.errors, kind, 1)

    def set_usable(self, available: Mapping[str, bool], limits: Mapping[str, int]) -> None:
        """Note the archives that answer, and the tokens at once."""
        self.available, self.limits = available, limits

    def _add(self, counter: Counter[str], key: str, number: int) -> None:
        with self._lock:
            counter[key] += number


@dataclass(frozen=True, slots=True)
class WorkerMeter:
    """Makes the metrics of a worker; ``slots`` returns the slots that it holds, by pool."""

    name: str
    counts: WorkerCounts
    clients: Mapping[str, ArchiveClient]
    sinks: JobSinks
    slots: Callable[[], Mapping[str, int]]
    started_at: float = field(default_factory=time.time)

    def render(self) -> str:
        """Return the text of the file."""
        return render_metrics("quarry_worker_", {"worker": self.name}, self._make_metrics())

    def _make_metrics(self) -> Iterator[Metric]:
        counts, limits = self.counts, self.counts.limits
        one, by = Metric.one, Metric.by
        yield one("info", "The version of Quarry.", 1, version=__version__)
        yield one("started_timestamp_seconds", "Time at which the worker began.", self.started_at)
        yield one("updated_timestamp_seconds", "Time of this file.", time.time())
        text = "Time of the last contact with the database."
        yield one("database_contact_timestamp_seconds", text, counts.contact_at)
        names = {*limits, *counts.tokens}
        tokens = {name: counts.tokens[name] for name in sorted(names)}
        yield by("tokens", "Studies, or pages of rows, in work, by queue.", "queue", tokens)
        allowed = {name: limits.get(name, 0) for name in sorted(names)}
        yield by("tokens_limit", "The most at once; 0 while the archive is not used.", "queue", allowed)
        yield from self._describe_archives()
        for name, text, counter in (
            ("studies_total", "Studies that have an outcome.", counts.studies),
            (
                "postponements_total",
                "Studies that were left for later, or to another worker.",
                counts.postponements,
            ),
        ):
            yield by(name, text, "archive", {archive: counter[archive] for archive in self.clients})
        errors = {kind: counts.errors[kind] for kind in ("archive", "job")}
        yield by("errors_total", "Times that an archive or a job was left to other workers.", "kind", errors)
        totals = self.sinks.totals
        yield one("stored_instances_total", "Instances that were stored.", totals.instances)
        yield one("stored_bytes_total", "Bytes that were stored.", totals.size)
        yield one("refused_instances_total", "Instances that were refused.", totals.refused)

    def _describe_archives(self) -> Iterator[Metric]:
        throttles = {name: client.throttle for name, client in self.clients.items()}
        held = self.slots()
        sizes = {pool: size for one in throttles.values() for pool, size in one.shared_slots}
        yield Metric.by(
            "slots", "Slots of the site's limits held.", "pool", {pool: held.get(pool, 0) for pool in sizes}
        )
        yield Metric.by("slots_limit", "Slots of the site's limits, for all workers.", "pool", sizes)
        facts: tuple[tuple[str, str, Callable[[str], float]], ...] = (
            (
                "archive_available",
                "1 unless the archive does not answer.",
                lambda name: int(self.counts.available.get(name, True)),
            ),
            ("window_open", "1 inside the archive's window.", lambda name: int(throttles[name].is_open)),
            (
                "retrievals_limit",
                "The most retrievals at once; fewer while the archive is too busy.",
                lambda name: throttles[name].concurrency.current_limit,
            ),
        )
        for metric, text, value in facts:
            yield Metric.by(metric, text, "archive", {name: value(name) for name in throttles})


@contextmanager
def writing_metrics(folder: Path | None, meter: WorkerMeter) -> Iterator[None]:
    """Write the worker's file once a second while the context lasts; a clean end removes it."""
    if folder is None:
        yield
        return
    path = folder / f"quarry_worker_{re.sub(r'[^A-Za-z0-9.-]', '_', meter.name)}.prom"
    ended = threading.Event()
    thread = threading.Thread(target=_write_until, args=(ended, path, meter), name="metrics", daemon=True)
    start_thread(thread)
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            path.unlink()


def _write_until(ended: threading.Event, path: Path, meter: WorkerMeter) -> None:
    guard, has_failed = LoopGuard("metrics", _log, ended.wait), False
    while not ended.is_set():
        try:
            write_metrics(path, meter.render())
            guard.on_success()
        except OSError as error:
            if not has_failed:
                _log.warning("metrics: %s cannot be written (%s); trying again", path.parent, error.strerror)
            has_failed = True
        except Exception as error:  # noqa: BLE001 - an error costs one file, not the worker
            guard.on_error(error)
        ended.wait(_INTERVAL)
