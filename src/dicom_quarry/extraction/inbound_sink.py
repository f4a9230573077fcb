"""The sink of a job: it stores instances, and records them for the tasks that requested them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Final, Protocol

from dicom_quarry.errors import InstanceRefused, OutOfSpace
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.refusals import RefusalLog
from dicom_quarry.model import InstanceInfo, Receipt, Sink, StoreResult, Writer
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor


class InboundStore(Sink, Protocol):
    """The store of a job: instances are stored at once, and made durable later."""

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        """Make files durable, with their names; raises InstanceRefused."""

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        """Remove files that could not be made durable."""


class InboundSink:
    """The sink of a job: an instance is acknowledged once it is stored *and* recorded for its task.

    It is made durable with the others of its study, before the outcome of the task. Instances are refused
    while the disk has too little free space. ``bandwidth_limiter_for`` returns, for an instance, the function
    that receives the number of bytes that arrived and may delay their sender.
    """

    def __init__(
        self,
        store: InboundStore,
        inbound: InboundStudies,
        disk_space: DiskSpaceMonitor | None = None,
        bandwidth_limiter_for: Callable[[InstanceInfo], Callable[[int], None] | None] | None = None,
    ) -> None:
        self._store = store
        self._inbound = inbound
        self._disk_space = disk_space
        self._bandwidth_limiter_for = bandwidth_limiter_for
        self.refusals: Final = RefusalLog()
        self._lock = threading.Lock()
        self._instances = self._size = self._refused = 0

    @property
    def refused(self) -> int:
        """Number of refused instances, whatever their transport."""
        with self._lock:
            return self._refused

    @property
    def totals(self) -> tuple[int, int]:
        """Number of stored instances, and the bytes of their files."""
        with self._lock:
            return self._instances, self._size

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance. Raises InstanceRefused, or OutOfSpace."""
        try:
            self.require_space()
            writer = self._store.begin(arrival)
        except Exception as error:
            self.on_refused(arrival.sop_uid, error)
            raise
        limiter = self._bandwidth_limiter_for(arrival) if self._bandwidth_limiter_for else None
        return InboundWriter(self, writer, limiter, arrival.sop_uid)

    def expects(self, arrival: InstanceInfo) -> bool:
        """Return True if an instance was requested for an open study of this job."""
        return self._inbound.expects(arrival)

    def require_space(self) -> None:
        """Raise OutOfSpace if the disk has less space left than the job has to keep free."""
        if self._disk_space is not None:
            self._disk_space.require_space()

    def on_refused(self, sop_uid: str, error: Exception) -> None:
        """Count an instance that was refused, or could not be stored, and note the reason."""
        self.refusals.add_instance(sop_uid, error)
        with self._lock:
            self._refused += 1

    def on_sync_failed(self, sop_uids: Iterable[str], error: Exception) -> None:
        """Note the instances of a study that could not be made durable, and were discarded."""
        for sop_uid in sop_uids:
            self.on_write_failed(sop_uid, error)

    def on_write_failed(self, sop_uid: str, error: Exception) -> None:
        """Note an instance that could not be written, and a disk that is full though it seemed not to be."""
        self.on_refused(sop_uid, error)
        if self._disk_space is not None and isinstance(error, OutOfSpace):
            self._disk_space.mark_full()

    def record(self, receipt: Receipt) -> None:
        """Record a stored instance for its task, and count it. Raises InstanceRefused or OutOfSpace."""
        if not self._inbound.record(receipt):
            self._sync_late_arrival(receipt)
            self._inbound.record_late_arrival(receipt)
        with self._lock:
            self._instances += 1
            self._size += receipt.size

    def _sync_late_arrival(self, receipt: Receipt) -> None:
        """Make an instance durable whose task is not going to: it may be concluded."""
        try:
            self._store.sync([receipt.path])
        except InstanceRefused as error:
            if receipt.result in (StoreResult.STORED, StoreResult.CONFLICT):
                self._store.discard([receipt.path])
            self.on_write_failed(receipt.ref.sop_uid, error)
            raise


#: Bytes of an instance after which the free space is checked again: some are larger than the reserve.
_SPACE_CHECK_BYTES: Final = 4 << 20


class InboundWriter:
    """One instance on its way to the store; see :class:`model.Writer`."""

    def __init__(
        self, sink: InboundSink, writer: Writer, limiter: Callable[[int], None] | None, sop_uid: str
    ) -> None:
        self.abort = writer.abort
        self._sop_uid = sop_uid
        self._sink = sink
        self._writer = writer
        self._limiter = limiter
        self._unchecked = 0

    def write(self, *pieces: memoryview) -> None:
        """Take the next bytes of the dataset. Raises InstanceRefused or OutOfSpace."""
        size = sum(map(len, pieces))
        try:
            self._writer.write(*pieces)
            self._unchecked += size
            if self._unchecked >= _SPACE_CHECK_BYTES:
                self._unchecked = 0
                self._sink.require_space()
        except Exception as error:
            # Removed before the free space is measured, so that the job waits for more than it gives back.
            self._writer.abort()
            self._sink.on_write_failed(self._sop_uid, error)
            raise
        if self._limiter is not None:
            self._limiter(size)

    def commit(self) -> Receipt:
        """Store the instance, and record it for its task. Raises InstanceRefused or OutOfSpace."""
        try:
            receipt = self._writer.commit()
        except Exception as error:
            self._sink.on_write_failed(self._sop_uid, error)
            raise
        self._sink.record(receipt)
        return receipt
