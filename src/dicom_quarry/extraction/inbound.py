"""Whose images are these? What arrived is compared with what the archive answered and the user asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList
from dicom_quarry.errors import InstanceRefused
from dicom_quarry.jobs.instance_paths import MISMATCH_DIR
from dicom_quarry.ledger.exclusions import excluded_studies
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import (
    Header,
    InstanceAdmission,
    InstanceInfo,
    Receipt,
    Sink,
    StoreResult,
    Study,
    Task,
    Writer,
)


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """Which differences matter: none once a person accepted them, patients not where merges are normal."""

    accept_all: bool = False
    accept_patients: bool = False

    def find_mismatch(self, study: Study, patient_id: str, accession: str) -> str:
        """What differs, in words; empty if nothing does. What either side leaves out cannot differ."""
        if self.accept_all:
            return ""
        if not self.accept_patients and patient_id and study.patient_id and patient_id != study.patient_id:
            return "patient ID"
        if accession and study.accession and accession != study.accession:
            return "accession"
        return ""


#: Study and Series Instance UID, on which admission is decided.
_STUDY_UID, _SERIES_UID = 0x0020000D, 0x0020000E
_PATIENT_ID, _OTHER_PATIENT_IDS, _ACCESSION = 0x00100020, 0x00101000, 0x00080050

#: C-STORE status "not authorised" (PS3.7 C.5.20): the study was not asked for.
_NOT_AUTHORIZED = 0x0124

#: The user's own columns, by header, of the row that a study was first asked for in.
CellsLookup = Callable[[Task], Mapping[str, str]]


class InboundStudy:
    """What has arrived of one task; a context in which its instances are waited for.

    ``folders`` hold its instances; the ``noted`` ones are in the ledger, too. ``excluded`` says, in words,
    what of an instance that was refused is on a list of what must not be taken.
    """

    def __init__(
        self,
        task: Task,
        cells: Mapping[str, str],
        receipts: Iterable[Receipt],
        identity_check: IdentityCheck,
        recorded_folders: Iterable[PurePosixPath] = (),
    ) -> None:
        self.task = task
        self.cells = cells
        self.receipts: dict[str, Receipt] = {}
        self._identity_check = identity_check
        self.mismatch = self.exclusion = ""
        self.folders: set[PurePosixPath] = set()
        self.recorded_folders = set(recorded_folders)
        self.conflicts = 0
        for receipt in receipts:
            self._add_existing(receipt)
        self.received = self.repeated = 0
        self._received_uids: set[str] = set()
        self.last_arrival = time.monotonic()
        self.closed = threading.Event()
        self._frozen = False
        self._changed = threading.Condition()

    def add(self, receipt: Receipt) -> bool:
        """An instance has become durable; False if nothing can be added any more."""
        with self._changed:
            if self._frozen:
                return False
            self.received += 1
            self.repeated += receipt.ref.sop_uid in self._received_uids
            self._received_uids.add(receipt.ref.sop_uid)
            if receipt.result is StoreResult.CONFLICT:
                self.conflicts += 1
            self._check_identity(receipt)
            self.receipts.setdefault(receipt.ref.sop_uid, receipt)
            self.last_arrival = time.monotonic()
            self._changed.notify_all()
            return True

    def _add_existing(self, receipt: Receipt) -> None:
        """Of several files of one instance the first counts; the others are in conflict with it."""
        first = self.receipts.setdefault(receipt.ref.sop_uid, receipt)
        if receipt.result is StoreResult.CONFLICT or first.digest != receipt.digest:
            self.conflicts += 1
        self._check_identity(receipt)
        self.folders.add(receipt.path.parent)

    def _check_identity(self, receipt: Receipt) -> None:
        mismatch = self._identity_check.find_mismatch(self.task.study, receipt.patient_id, receipt.accession)
        self.mismatch = self.mismatch or mismatch

    def freeze(self, expected: int | None = None) -> bool:
        """Add nothing any more; False, and nothing changed, if more than ``taken`` have come by now."""
        with self._changed:
            self._frozen = expected is None or expected == self.received
            return self._frozen

    def wait(self, timeout: float) -> None:
        """Return when something arrives, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait(timeout)


class InboundStudies:
    """The open deliveries of a job, found by the Study Instance UID in the data."""

    def __init__(
        self,
        ledger: Ledger,
        cells: CellsLookup,
        identity_check: IdentityCheck = IdentityCheck(),
        exclusions: ExclusionList = NO_EXCLUSIONS,
    ) -> None:
        self._ledger = ledger
        self._identity_check = identity_check
        self._exclusions = exclusions
        #: Studies of which an instance was refused, in this run or in one before: no other is taken either.
        self._excluded_uids = excluded_studies(ledger.database)
        self._cells = cells
        self._open_studies: dict[str, InboundStudy] = {}
        self._lock = threading.Lock()

    def open(
        self, task: Task, receipts: Iterable[Receipt], recorded_folders: Iterable[PurePosixPath] = ()
    ) -> InboundStudy:
        """Expect instances of a task; ``receipts`` are of those here, ``noted`` the folders in the ledger."""
        inbound = InboundStudy(task, self._cells(task), receipts, self._identity_check, recorded_folders)
        for receipt in inbound.receipts.values() if self._exclusions else ():
            identifiers = {"PatientID": receipt.patient_id, "AccessionNumber": receipt.accession}
            inbound.exclusion = inbound.exclusion or self._exclusions.match_values(identifiers)
        with self._lock:
            self._open_studies[task.study.study_uid] = inbound
        return inbound

    def close(self, inbound: InboundStudy) -> None:
        """Stop waiting for a task's instances."""
        with self._lock:
            self._open_studies.pop(inbound.task.study.study_uid, None)
        inbound.closed.set()

    def admit(self, _arrival: InstanceInfo, header: Header) -> InstanceAdmission:
        """Let an instance in if this job asked for it; what the path pattern may use of the table.

        Raises Refused otherwise: what nobody asked for is not stored.
        """
        study_uid = header[_STUDY_UID]
        inbound = self._open_studies.get(study_uid)
        task = inbound.task if inbound else self._ledger.task_of(study_uid)
        wanted = task.selection.series if task else frozenset()
        if task is None or (wanted and header[_SERIES_UID] not in wanted):
            raise InstanceRefused("it was not asked for, or it was released", status=_NOT_AUTHORIZED)
        self._refuse_excluded(study_uid, header, inbound)
        cells = inbound.cells if inbound else self._cells(task)
        patient_id, accession = header.get(_PATIENT_ID, ""), header.get(_ACCESSION, "")
        mismatch = self._identity_check.find_mismatch(task.study, patient_id, accession)
        return InstanceAdmission(cells, MISMATCH_DIR if mismatch else "")

    def _refuse_excluded(self, study_uid: str, header: Header, inbound: InboundStudy | None) -> None:
        """Raises Refused for what must not be taken, whatever the archive has said of its study."""
        identifiers = {
            "PatientID": "\\".join((header.get(_PATIENT_ID, ""), header.get(_OTHER_PATIENT_IDS, ""))),
            "AccessionNumber": header.get(_ACCESSION, ""),
            "StudyInstanceUID": study_uid,
        }
        matched_keys = self._exclusions.match_values(identifiers)
        if matched_keys:
            self._excluded_uids.add(study_uid)
            if inbound:
                inbound.exclusion = matched_keys
        if study_uid in self._excluded_uids:
            raise InstanceRefused("it must not be taken: it is on the exclusion list", status=_NOT_AUTHORIZED)

    def find_mismatch(self, task: Task, receipt: Receipt) -> str:
        """What of an instance's identity is not as expected, in words; empty if all is."""
        return self._identity_check.find_mismatch(task.study, receipt.patient_id, receipt.accession)

    def record(self, receipt: Receipt) -> None:
        """Account for a durable instance, before its sender is told so."""
        inbound = self._open_studies.get(receipt.ref.study_uid)
        if inbound is None:
            self._record_late_arrival(receipt)
            return
        folder = receipt.path.parent
        if folder not in inbound.recorded_folders:
            self._ledger.add_folders(inbound.task.task_id, [str(folder)]).result()
            inbound.recorded_folders.add(folder)
        inbound.folders.add(folder)
        if not inbound.add(receipt):
            # The task is being concluded without it.
            inbound.closed.wait()
            self._record_late_arrival(receipt)

    def _record_late_arrival(self, receipt: Receipt) -> None:
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
        self._ledger.add_late_instance(task.task_id, row, str(receipt.path.parent))


class InboundSink:
    """The store behind the job's bookkeeping: acknowledged means durable *and* accounted for.

    ``counting`` says who is to be told how many bytes of an instance have come, and may hold its sender up.
    """

    def __init__(
        self,
        store: Sink,
        inbound: InboundStudies,
        bandwidth_limiter_for: Callable[[InstanceInfo], Callable[[int], None] | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._inbound = inbound
        self._bandwidth_limiter_for = bandwidth_limiter_for
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

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance. Raises Refused."""
        with self._count_refused():
            inner = self._store.begin(arrival)
        return _InboundWriter(inner, self._count_refused, self._record, self._bandwidth_limiter_for(arrival))

    @contextmanager
    def _count_refused(self) -> Iterator[None]:
        """Take note of an instance that is refused in here, whichever road it came."""
        try:
            yield
        except InstanceRefused:
            with self._lock:
                self._refused += 1
            raise

    def _record(self, receipt: Receipt) -> None:
        self._inbound.record(receipt)
        with self._lock:
            self._instances += 1
            self._size += receipt.size


class _InboundWriter:
    def __init__(
        self,
        inner: Writer,
        count_refused: Callable[[], AbstractContextManager[None]],
        on_commit: Callable[[Receipt], None],
        on_bytes: Callable[[int], None] | None,
    ) -> None:
        self.abort = inner.abort
        self._inner = inner
        self._count_refused = count_refused
        self._on_commit = on_commit
        self._on_bytes = on_bytes

    def write(self, data: memoryview) -> None:
        size = len(data)
        with self._count_refused():
            self._inner.write(data)
        if self._on_bytes:
            self._on_bytes(size)

    def commit(self) -> Receipt:
        with self._count_refused():
            receipt = self._inner.commit()
        self._on_commit(receipt)
        return receipt
