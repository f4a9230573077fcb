"""Inbound instances: admission by study and identity, and their record for the task that requested them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList
from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.identity import IdentityCheck
from dicom_quarry.jobs.folder import MISMATCH_DIR
from dicom_quarry.ledger.exclusions import excluded_studies
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import (
    Header,
    InstanceAdmission,
    InstanceInfo,
    Receipt,
    StoreResult,
    Task,
)
from dicom_quarry.wire.header_scan import ANYWHERE

#: Study and Series Instance UID, by which an instance is admitted.
_STUDY_UID, _SERIES_UID = 0x0020000D, 0x0020000E
_PATIENT_ID, _OTHER_PATIENT_IDS, _ACCESSION = 0x00100020, 0x00101000, 0x00080050
#: The identifiers of an instance that are compared with exclusion lists, wherever in the dataset they are:
#: also in Other Patient IDs Sequence, Request Attributes Sequence, Original Attributes Sequence and others.
_PATIENT_IDS_ANYWHERE: Final = (_PATIENT_ID | ANYWHERE, _OTHER_PATIENT_IDS | ANYWHERE)
_ACCESSIONS_ANYWHERE: Final = (_ACCESSION | ANYWHERE,)

#: C-STORE status "not authorised" (PS3.7 C.5.20), for instances that the job did not request.
_NOT_AUTHORIZED = 0x0124

#: Returns the user's own columns, by header, of the first row that requested a study.
CellsLookup = Callable[[Task], Mapping[str, str]]


class InboundStudy:
    """The instances that have arrived for one task.

    ``receipts`` are by SOP Instance UID. ``folders`` hold the instances; the ledger has the
    ``recorded_folders``. ``unsynced`` are the files that may not be durable yet, each with True if it belongs
    to no other task, so that it may be discarded; ``synced_paths`` are those of an earlier outcome.
    ``mismatch`` is the attribute in which an instance differs from its study.
    ``listed_uids`` are the SOP Instance UIDs that the archive lists; ``names_other_study`` is True if one of
    these came with the UID of another study. ``exclusion`` is the key of a refused instance that is on an
    exclusion list. ``received`` counts the instances of this run, ``repeated`` those that arrived more than
    once.
    """

    def __init__(
        self,
        task: Task,
        cells: Mapping[str, str],
        receipts: Iterable[Receipt],
        identity_check: IdentityCheck,
        recorded_folders: Iterable[PurePosixPath] = (),
        synced_paths: Container[PurePosixPath] = (),
    ) -> None:
        self.task = task
        self.cells = cells
        self.receipts: dict[str, Receipt] = {}
        self._identity_check = identity_check
        self.mismatch = self.exclusion = ""
        self.listed_uids: frozenset[str] = frozenset()
        self.names_other_study = False
        #: Message IDs of the C-MOVE requests for this study, and instances that these or its list tie to it.
        self.move_ids: set[int] = set()
        self.tied_uids: set[str] = set()
        self.folders: set[PurePosixPath] = set()
        self.last_folder: tuple[str, ...] | None = None  # its levels; it is among the folders
        self.recorded_folders = set(recorded_folders)
        self.unsynced: dict[PurePosixPath, bool] = {}
        self.conflicts = 0
        for receipt in receipts:
            self._add_existing(receipt)
            if receipt.path not in synced_paths:
                self.unsynced[receipt.path] = True
        self.received = self.repeated = 0
        self._received_uids: set[str] = set()
        self.last_arrival = time.monotonic()
        self.closed = threading.Event()
        self._frozen = False
        self._changed = threading.Condition()

    def add(self, receipt: Receipt) -> bool:
        """Add an instance that was stored; return False if the study is frozen."""
        with self._changed:
            if self._frozen:
                return False
            self.received += 1
            self.repeated += receipt.ref.sop_uid in self._received_uids
            self._received_uids.add(receipt.ref.sop_uid)
            if receipt.result is StoreResult.CONFLICT:
                self.conflicts += 1
            self._check_identity(receipt)
            is_new = receipt.result in (StoreResult.STORED, StoreResult.CONFLICT)
            self.unsynced[receipt.path] = self.unsynced.get(receipt.path, is_new)
            self.receipts.setdefault(receipt.ref.sop_uid, receipt)
            self.last_arrival = time.monotonic()
            self._changed.notify_all()
            return True

    def _add_existing(self, receipt: Receipt) -> None:
        """Add an instance of an earlier run; of several files of one instance the first counts."""
        first = self.receipts.setdefault(receipt.ref.sop_uid, receipt)
        if receipt.result is StoreResult.CONFLICT or first.digest != receipt.digest:
            self.conflicts += 1
        self._check_identity(receipt)
        self.folders.add(receipt.path.parent)

    def _check_identity(self, receipt: Receipt) -> None:
        mismatch = self._identity_check.find_mismatch(self.task.study, receipt.patient_id, receipt.accession)
        self.mismatch = self.mismatch or mismatch

    def drop_unsynced(self) -> tuple[list[str], list[PurePosixPath]]:
        """Remove the instances that could not be made durable; the study must be frozen.

        Returns their SOP Instance UIDs, and the files to discard.
        """
        with self._changed:
            lost = [uid for uid, receipt in self.receipts.items() if receipt.path in self.unsynced]
            discarded = [path for path, may_discard in self.unsynced.items() if may_discard]
            for uid in lost:
                del self.receipts[uid]
            self.unsynced.clear()
        return lost, discarded

    def freeze(self, expected: int | None = None) -> bool:
        """Accept no more instances; return False, with no effect, if more than ``expected`` have arrived."""
        with self._changed:
            self._frozen = expected is None or expected == self.received
            return self._frozen

    def wait(self, timeout: float) -> None:
        """Return when an instance arrives, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait(timeout)


class InboundStudies:
    """The open studies of a job, found by the Study Instance UID of an instance."""

    def __init__(
        self,
        ledger: Ledger,
        cells: CellsLookup,
        identity_check: IdentityCheck = IdentityCheck(),  # noqa: B008 (frozen)
        exclusions: ExclusionList = NO_EXCLUSIONS,
    ) -> None:
        self._ledger = ledger
        self._identity_check = identity_check
        self._exclusions = exclusions
        self._has_exclusions = bool(exclusions)
        #: The tags that ``admit`` needs in addition to the store's own.
        self.tags: Final = frozenset(
            (*_PATIENT_IDS_ANYWHERE, *_ACCESSIONS_ANYWHERE) if self._has_exclusions else ()
        )
        #: Studies of which an instance was refused, now or in an earlier run: their other instances are, too.
        self._excluded_uids = excluded_studies(ledger.database)
        self._cells = cells
        self._open_studies: dict[str, InboundStudy] = {}
        self._lock = threading.Lock()

    def open(
        self,
        task: Task,
        receipts: Iterable[Receipt],
        recorded_folders: Iterable[PurePosixPath] = (),
        synced_paths: Container[PurePosixPath] = (),
    ) -> InboundStudy:
        """Expect the instances of a task; ``receipts`` are of its stored instances."""
        inbound = InboundStudy(
            task, self._cells(task), receipts, self._identity_check, recorded_folders, synced_paths
        )
        for receipt in inbound.receipts.values() if self._has_exclusions else ():
            identifiers = {"PatientID": receipt.patient_id, "AccessionNumber": receipt.accession}
            inbound.exclusion = inbound.exclusion or self._exclusions.match_values(identifiers)
        with self._lock:
            self._open_studies[task.study.study_uid] = inbound
        return inbound

    def close(self, inbound: InboundStudy) -> None:
        """Stop waiting for a task's instances."""
        study_uid = inbound.task.study.study_uid
        with self._lock:
            if self._open_studies.get(study_uid) is inbound:
                del self._open_studies[study_uid]
        inbound.closed.set()

    def _find_requested(self, arrival: InstanceInfo) -> InboundStudy | None:
        """Return the one open study for which an instance was requested, None if nothing ties it to one.

        The archive lists it for that study, or it came on the study's own request, or repeats its message ID.
        """
        with self._lock:
            studies = list(self._open_studies.values())
        found = [one for one in studies if arrival.sop_uid in one.listed_uids]
        found = found or [one for one in studies if one.task.task_id == arrival.task_id]
        found = found or [one for one in studies if arrival.move_id in one.move_ids]
        return found[0] if len(found) == 1 else None

    def _admit_to_requested(self, arrival: InstanceInfo) -> InboundStudy | None:
        """Return the open study of an instance that names another study, None if nothing ties it to one.

        Raises InstanceRefused if the user does not accept another identity.
        """
        inbound = self._find_requested(arrival)
        if inbound is not None:
            inbound.names_other_study = True
            inbound.tied_uids.add(arrival.sop_uid)
            if not self._identity_check.accept_all:
                raise InstanceRefused(
                    "its Study Instance UID is not that of the archive's answer", status=_NOT_AUTHORIZED
                )
        return inbound

    def expects(self, arrival: InstanceInfo) -> bool:
        """Return True if an instance was requested for an open study, as far as that can be seen."""
        return self._find_requested(arrival) is not None

    def _find_tied(self, sop_uid: str) -> InboundStudy | None:
        with self._lock:
            return next((one for one in self._open_studies.values() if sop_uid in one.tied_uids), None)

    def admit(self, arrival: InstanceInfo, header: Header) -> InstanceAdmission:
        """Admit an instance that this job requested, with the user's columns for its path.

        An instance with another identity than its study goes to the folder for mismatches. Raises
        InstanceRefused for an instance that the job did not request, or that is on an exclusion list.
        """
        study_uid = header[_STUDY_UID]
        inbound = self._open_studies.get(study_uid)
        task = inbound.task if inbound else self._ledger.task_of(study_uid)
        wanted = task.selection.series if task else frozenset()
        of_other_study = None if task else self._admit_to_requested(arrival)
        if of_other_study:
            inbound, task = of_other_study, of_other_study.task
        if task is None or (wanted and header[_SERIES_UID] not in wanted):
            raise InstanceRefused(
                "this job did not request it, or its study was released", status=_NOT_AUTHORIZED
            )
        if self._has_exclusions:
            self._match_exclusions(study_uid, header, inbound)
        if study_uid in self._excluded_uids:
            raise InstanceRefused("it is on the exclusion list", status=_NOT_AUTHORIZED)
        cells = inbound.cells if inbound else self._cells(task)
        patient_id, accession = header.get(_PATIENT_ID, ""), header.get(_ACCESSION, "")
        mismatch = self._identity_check.find_mismatch(task.study, patient_id, accession)
        return InstanceAdmission(cells, MISMATCH_DIR if mismatch or of_other_study else "")

    def _match_exclusions(self, study_uid: str, header: Header, inbound: InboundStudy | None) -> None:
        """Note the study as excluded if the instance is on a list, even if the query result was not."""
        identifiers = {
            "PatientID": _join(header, (_PATIENT_ID, _OTHER_PATIENT_IDS, *_PATIENT_IDS_ANYWHERE)),
            "AccessionNumber": _join(header, (_ACCESSION, *_ACCESSIONS_ANYWHERE)),
            "StudyInstanceUID": study_uid,
        }
        matched_keys = self._exclusions.match_values(identifiers)
        if matched_keys:
            self._excluded_uids.add(study_uid)
            if inbound:
                inbound.exclusion = matched_keys

    def find_mismatch(self, task: Task, receipt: Receipt) -> str:
        """Return the name of the attribute in which an instance differs from its study, empty if none."""
        return self._identity_check.find_mismatch(task.study, receipt.patient_id, receipt.accession)

    def record(self, receipt: Receipt) -> bool:
        """Record a stored instance for its task, before its sender gets the acknowledgement.

        Returns False if no thread works on its task: see ``record_late_arrival``.
        """
        ref = receipt.ref
        inbound = self._open_studies.get(ref.study_uid) or self._find_tied(ref.sop_uid)
        if inbound is None:
            return False
        # The instances of a series share a folder; a comparison of paths costs more than one of their parts.
        if (levels := receipt.path.parts[:-1]) != inbound.last_folder:
            self._record_folder(inbound, receipt.path.parent)
            inbound.last_folder = levels
        if inbound.add(receipt):
            return True
        # The task is being concluded without it.
        inbound.closed.wait()
        return False

    def _record_folder(self, inbound: InboundStudy, folder: PurePosixPath) -> None:
        if folder not in inbound.recorded_folders:
            self._ledger.add_folders(inbound.task.task_id, [str(folder)]).result()
            inbound.recorded_folders.add(folder)
        inbound.folders.add(folder)

    def record_late_arrival(self, receipt: Receipt) -> None:
        """Record a durable instance of a task that no thread works on: it is concluded, or waits."""
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


def _join(header: Header, tags: Iterable[int]) -> str:
    return "\\".join(filter(None, (header.get(tag, "") for tag in tags)))
