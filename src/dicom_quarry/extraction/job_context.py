"""A job, apart from the worker that works on it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.model import Receipt
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.scheduling.job_room import JobRoom


class InstanceFiles(Protocol):
    """The part of the store that a job needs in addition to its Sink."""

    def read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Yield a receipt for every whole instance in a folder."""

    def relocate(self, receipt: Receipt, subdirectory: str) -> Receipt:
        """Move an instance from below ``subdirectory`` to its usual folder."""

    def list_files(self, directory: PurePosixPath) -> list[PurePosixPath]:
        """Return the files of a folder; raises InstanceRefused."""

    def find_unsynced(
        self, directory: PurePosixPath, study_uid: str, synced: Container[PurePosixPath]
    ) -> Iterator[PurePosixPath]:
        """Yield the files of a study that may not be whole after a restart of the computer."""

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        """Make these files durable, with their names up to the root; raises InstanceRefused."""

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        """Remove files that could not be made durable."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """The parts of a job, whatever worker works on it; ``path_of`` returns the path of an instance.

    ``on_task_complete`` is called with the number of every task that ended complete.
    """

    queries: QueryContext
    folder: JobPlace
    ledger: Ledger
    audit_log: AuditLog
    path_of: PathFunction
    inbound: InboundStudies
    sink: InboundSink
    instance_files: InstanceFiles
    disk_space: DiskSpaceMonitor
    room: JobRoom
    on_task_complete: Callable[[int], object] = lambda _: None
