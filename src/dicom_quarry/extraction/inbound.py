"""Instances on their way in: who asked for them, and what has arrived of each task. The job's Sink."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import PurePosixPath

from dicom_quarry.cohort.exclusion_list import NOBODY, Exclusions
from dicom_quarry.errors import Refused
from dicom_quarry.extraction.identity_check import APART, Identity
from dicom_quarry.ledger.exclusions import excluded_studies
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Admitted, Arrival, Header, Kept, Receipt, Sink, Task, Writer

#: Study and Series Instance UID, on which admission is decided.
_STUDY_UID, _SERIES_UID = 0x0020000D, 0x0020000E
_PATIENT_ID, _OTHER_PATIENT_IDS, _ACCESSION = 0x00100020, 0x00101000, 0x00080050

#: C-STORE status "not authorised" (PS3.7 C.5.20): the study was not asked for.
_NOT_ASKED_FOR = 0x0124

#: The user's own columns, by header, of the row that a study was first asked for in.
Cells = Callable[[Task], Mapping[str, str]]


class Delivery:
    """What has arrived of one task; a context in which its instances are waited for.

    ``folders`` hold its instances; the ``noted`` ones are in the ledger, too. ``excluded`` says, in words,
    what of an instance that was refused is on a list of what must not be taken.
    """

    def __init__(
        self,
        task: Task,
        cells: Mapping[str, str],
        receipts: Iterable[Receipt],
        identity: Identity,
        noted: Iterable[PurePosixPath] = (),
    ) -> None:
        self.task = task
        self.cells = cells
        self.receipts: dict[str, Receipt] = {}
        self._identity = identity
        self.differs = self.excluded = ""
        self.folders: set[PurePosixPath] = set()
        self.noted = set(noted)
        self.conflicts = 0
        for receipt in receipts:
            self._adopt(receipt)
        self.taken = self.repeated = 0
        self._came: set[str] = set()
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
            self.repeated += receipt.ref.sop_uid in self._came
            self._came.add(receipt.ref.sop_uid)
            if receipt.kept is Kept.CONFLICT:
                self.conflicts += 1
            self._compare(receipt)
            self.receipts.setdefault(receipt.ref.sop_uid, receipt)
            self.last_arrival = time.monotonic()
            self._changed.notify_all()
            return True

    def _adopt(self, receipt: Receipt) -> None:
        """Of several files of one instance the first counts; the others are in conflict with it."""
        first = self.receipts.setdefault(receipt.ref.sop_uid, receipt)
        if receipt.kept is Kept.CONFLICT or first.digest != receipt.digest:
            self.conflicts += 1
        self._compare(receipt)
        self.folders.add(receipt.path.parent)

    def _compare(self, receipt: Receipt) -> None:
        differs = self._identity.difference(self.task.study, receipt.patient_id, receipt.accession)
        self.differs = self.differs or differs

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

    def __init__(
        self,
        ledger: Ledger,
        cells: Cells,
        identity: Identity = Identity(),  # noqa: B008 (frozen)
        exclusions: Exclusions = NOBODY,
    ) -> None:
        self._ledger = ledger
        self._identity = identity
        self._exclusions = exclusions
        #: Studies of which an instance was refused, in this run or in one before: no other is taken either.
        self._excluded = excluded_studies(ledger.database)
        self._cells = cells
        self._open: dict[str, Delivery] = {}
        self._lock = threading.Lock()

    def open(self, task: Task, receipts: Iterable[Receipt], noted: Iterable[PurePosixPath] = ()) -> Delivery:
        """Expect instances of a task; ``receipts`` are of those here, ``noted`` the folders in the ledger."""
        delivery = Delivery(task, self._cells(task), receipts, self._identity, noted)
        for receipt in delivery.receipts.values() if self._exclusions else ():
            identifiers = {"PatientID": receipt.patient_id, "AccessionNumber": receipt.accession}
            delivery.excluded = delivery.excluded or self._exclusions.names(identifiers)
        with self._lock:
            self._open[task.study.study_uid] = delivery
        return delivery

    def close(self, delivery: Delivery) -> None:
        """Stop waiting for a task's instances."""
        with self._lock:
            self._open.pop(delivery.task.study.study_uid, None)
        delivery.closed.set()

    def admit(self, _arrival: Arrival, header: Header) -> Admitted:
        """Let an instance in if this job asked for it; what the path pattern may use of the table.

        Raises Refused otherwise: what nobody asked for is not stored.
        """
        study_uid = header[_STUDY_UID]
        delivery = self._open.get(study_uid)
        task = delivery.task if delivery else self._ledger.task_of(study_uid)
        wanted = task.selection.series if task else frozenset()
        if task is None or (wanted and header[_SERIES_UID] not in wanted):
            raise Refused("it was not asked for, or it was released", status=_NOT_ASKED_FOR)
        self._refuse_excluded(study_uid, header, delivery)
        cells = delivery.cells if delivery else self._cells(task)
        patient_id, accession = header.get(_PATIENT_ID, ""), header.get(_ACCESSION, "")
        differs = self._identity.difference(task.study, patient_id, accession)
        return Admitted(cells, APART if differs else "")

    def _refuse_excluded(self, study_uid: str, header: Header, delivery: Delivery | None) -> None:
        """Raises Refused for what must not be taken, whatever the archive has said of its study."""
        identifiers = {
            "PatientID": "\\".join((header.get(_PATIENT_ID, ""), header.get(_OTHER_PATIENT_IDS, ""))),
            "AccessionNumber": header.get(_ACCESSION, ""),
            "StudyInstanceUID": study_uid,
        }
        named = self._exclusions.names(identifiers)
        if named:
            self._excluded.add(study_uid)
            if delivery:
                delivery.excluded = named
        if study_uid in self._excluded:
            raise Refused("it must not be taken: it is on the exclusion list", status=_NOT_ASKED_FOR)

    def differs(self, task: Task, receipt: Receipt) -> str:
        """What of an instance's identity is not as expected, in words; empty if all is."""
        return self._identity.difference(task.study, receipt.patient_id, receipt.accession)

    def arrived(self, receipt: Receipt) -> None:
        """Account for a durable instance, before its sender is told so."""
        delivery = self._open.get(receipt.ref.study_uid)
        if delivery is None:
            self._late(receipt)
            return
        folder = receipt.path.parent
        if folder not in delivery.noted:
            self._ledger.add_folders(delivery.task.task_id, [str(folder)]).result()
            delivery.noted.add(folder)
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
    """The store behind the job's bookkeeping: acknowledged means durable *and* accounted for.

    ``counting`` says who is to be told how many bytes of an instance have come, and may hold its sender up.
    """

    def __init__(
        self,
        store: Sink,
        deliveries: Deliveries,
        counting: Callable[[Arrival], Callable[[int], None] | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._deliveries = deliveries
        self._counting = counting
        self._lock = threading.Lock()
        self._instances = self._size = self._refused = 0

    @property
    def refused(self) -> int:
        """Instances that came and were not taken."""
        with self._lock:
            return self._refused

    @property
    def totals(self) -> tuple[int, int]:
        """Instances that came and were kept, and the bytes of their files."""
        with self._lock:
            return self._instances, self._size

    def begin(self, arrival: Arrival) -> Writer:
        """Start one instance. Raises Refused."""
        with self._noting():
            inner = self._store.begin(arrival)
        return _JobWriter(inner, self._noting, self._arrived, self._counting(arrival))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Take note of an instance that is refused in here, whichever road it came."""
        try:
            yield
        except Refused:
            with self._lock:
                self._refused += 1
            raise

    def _arrived(self, receipt: Receipt) -> None:
        self._deliveries.arrived(receipt)
        with self._lock:
            self._instances += 1
            self._size += receipt.size


class _JobWriter:
    def __init__(
        self,
        inner: Writer,
        noting: Callable[[], AbstractContextManager[None]],
        arrived: Callable[[Receipt], None],
        received: Callable[[int], None] | None,
    ) -> None:
        self.abort = inner.abort
        self._inner = inner
        self._noting = noting
        self._arrived = arrived
        self._received = received

    def write(self, data: memoryview) -> None:
        size = len(data)
        with self._noting():
            self._inner.write(data)
        if self._received:
            self._received(size)

    def commit(self) -> Receipt:
        with self._noting():
            receipt = self._inner.commit()
        self._arrived(receipt)
        return receipt
