"""Instances on their way in: who asked for them, and what has arrived of each task. The job's Sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

from dicom_quarry.errors import Refused
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Arrival, Header, Kept, Receipt, Sink, Task, Writer

#: Study and Series Instance UID, on which admission is decided.
_STUDY_UID, _SERIES_UID = 0x0020000D, 0x0020000E

#: C-STORE status "not authorised" (PS3.7 C.5.20): the study was not asked for.
_NOT_ASKED_FOR = 0x0124

#: The user's own columns, by header, of the row that a study was first asked for in.
Cells = Callable[[Task], Mapping[str, str]]


class Delivery:
    """What has arrived of one task; a context in which its instances are waited for."""

    def __init__(self, task: Task, cells: Mapping[str, str], receipts: Iterable[Receipt]) -> None:
        self.task = task
        self.cells = cells
        self.receipts = {receipt.ref.sop_uid: receipt for receipt in receipts}
        self.folders: set[PurePosixPath] = {receipt.path.parent for receipt in self.receipts.values()}
        self.conflicts = 0
        self.taken = 0
        self.last_arrival = time.monotonic()
        self.closed = threading.Event()
        self._sealed = False
        self._changed = threading.Condition()

    def take(self, receipt: Receipt) -> bool:
        """An instance has become durable; False if nothing can be added any more."""
        with self._changed:
            if self._sealed:
                return False
            self.taken += 1
            if receipt.kept is Kept.CONFLICT:
                self.conflicts += 1
            self.receipts.setdefault(receipt.ref.sop_uid, receipt)
            self.last_arrival = time.monotonic()
            self._changed.notify_all()
            return True

    def seal(self, taken: int | None = None) -> bool:
        """Add nothing any more; False, and nothing changed, if more than ``taken`` have come by now."""
        with self._changed:
            self._sealed = taken is None or taken == self.taken
            return self._sealed

    def wait(self, timeout: float) -> None:
        """Return when something arrives, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait(timeout)


class Deliveries:
    """The open deliveries of a job, found by the Study Instance UID in the data."""

    def __init__(self, ledger: Ledger, cells: Cells) -> None:
        self._ledger = ledger
        self._cells = cells
        self._open: dict[str, Delivery] = {}
        self._lock = threading.Lock()

    def open(self, task: Task, receipts: Iterable[Receipt]) -> Delivery:
        """Expect instances of a task; ``receipts`` are of those that are here already."""
        delivery = Delivery(task, self._cells(task), receipts)
        with self._lock:
            self._open[task.study.study_uid] = delivery
        return delivery

    def close(self, delivery: Delivery) -> None:
        """Stop waiting for a task's instances."""
        with self._lock:
            self._open.pop(delivery.task.study.study_uid, None)
        delivery.closed.set()

    def admit(self, _arrival: Arrival, header: Header) -> Mapping[str, str]:
        """Let an instance in if this job asked for it; what the path pattern may use of the table.

        Raises Refused otherwise: what nobody asked for is not stored.
        """
        study_uid = header[_STUDY_UID]
        delivery = self._open.get(study_uid)
        task = delivery.task if delivery else self._ledger.task_of(study_uid)
        wanted = task.selection.series if task else frozenset()
        if task is None or (wanted and header[_SERIES_UID] not in wanted):
            raise Refused("it was not asked for", status=_NOT_ASKED_FOR)
        return delivery.cells if delivery else self._cells(task)

    def arrived(self, receipt: Receipt) -> None:
        """Account for a durable instance, before its sender is told so."""
        delivery = self._open.get(receipt.ref.study_uid)
        if delivery is None:
            self._late(receipt)
            return
        folder = receipt.path.parent
        if folder not in delivery.folders:
            self._ledger.add_folder(delivery.task.task_id, str(folder))
            delivery.folders.add(folder)
        if not delivery.take(receipt):
            # The task is being concluded without it.
            delivery.closed.wait()
            self._late(receipt)

    def _late(self, receipt: Receipt) -> None:
        """Of a task that is not being worked on: concluded, or waiting for another try."""
        task = self._ledger.task_of(receipt.ref.study_uid)
        if task is None:
            return
        row = InstanceRow(
            receipt.ref,
            listed=False,
            transfer_syntax=receipt.transfer_syntax,
            size=receipt.size,
            digest=receipt.digest,
            path=str(receipt.path),
        )
        self._ledger.add_late(task.task_id, row, str(receipt.path.parent))


class JobSink:
    """The store behind the job's bookkeeping: acknowledged means durable *and* accounted for."""

    def __init__(self, store: Sink, deliveries: Deliveries) -> None:
        self._store = store
        self._deliveries = deliveries

    def begin(self, arrival: Arrival) -> Writer:
        """Start one instance."""
        return _JobWriter(self._store.begin(arrival), self._deliveries)


class _JobWriter:
    def __init__(self, inner: Writer, deliveries: Deliveries) -> None:
        self.write = inner.write
        self.abort = inner.abort
        self._commit = inner.commit
        self._deliveries = deliveries

    def commit(self) -> Receipt:
        receipt = self._commit()
        self._deliveries.arrived(receipt)
        return receipt
