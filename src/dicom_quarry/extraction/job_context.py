"""What the work on a task is done with: the sources it may come from, and the places it goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from dicom_quarry.archive.base import Archive
from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList
from dicom_quarry.config.settings import ArchiveProfile
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.model import Receipt, Sink
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.scheduling.transport_selection import TransportSelector
from dicom_quarry.system.shutdown import Shutdown


class InstanceFiles(Protocol):
    """What the job needs of the store beside its Sink."""

    def read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Instances that lie whole in a folder."""

    def relocate(self, receipt: Receipt, subdirectory: str) -> Receipt:
        """Move an instance out of the folder where it was kept apart."""

    def sync_directories(self, paths: Iterable[PurePosixPath]) -> None:
        """Make the names of these files durable, up to the root."""


@dataclass(frozen=True, slots=True)
class ArchiveClient:
    """An archive, and how it is treated."""

    profile: ArchiveProfile
    archive: Archive
    circuit_breaker: CircuitBreaker
    throttle: ArchiveThrottle
    transport_selector: TransportSelector


@dataclass(frozen=True, slots=True)
class JobContext:
    """Shared by the threads of a job; ``sources`` in the order in which they are asked, by name.

    ``completed`` is told of every task that has ended complete.
    """

    clients: Mapping[str, ArchiveClient]
    sink: Sink
    instance_files: InstanceFiles
    path_of: PathFunction
    inbound: InboundStudies
    ledger: Ledger
    status_board: StatusBoard
    shutdown: Shutdown
    disk_space: DiskSpaceMonitor
    audit_log: AuditLog
    exclusions: ExclusionList = NO_EXCLUSIONS
    on_task_complete: Callable[[int], None] = lambda _: None
