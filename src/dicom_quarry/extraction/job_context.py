"""What the work on a task is done with: the sources it may come from, and the places it goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from dicom_quarry.archive.base import Archive
from dicom_quarry.cohort.exclusion_list import NOBODY, Exclusions
from dicom_quarry.config.settings import ArchiveProfile
from dicom_quarry.extraction.inbound import Deliveries
from dicom_quarry.jobs.audit_log import Audit
from dicom_quarry.jobs.progress import Board
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Derive
from dicom_quarry.model import Receipt, Sink
from dicom_quarry.scheduling.circuit_breaker import Gate
from dicom_quarry.scheduling.disk_space import Room
from dicom_quarry.scheduling.throttle import Guest
from dicom_quarry.scheduling.transport_selection import Roads
from dicom_quarry.system.shutdown import Stop


class Disk(Protocol):
    """What the job needs of the store beside its Sink."""

    def adopt(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Instances that lie whole in a folder."""

    def bring_in(self, receipt: Receipt, apart: str) -> Receipt:
        """Move an instance out of the folder where it was kept apart."""

    def sync_directories(self, paths: Iterable[PurePosixPath]) -> None:
        """Make the names of these files durable, up to the root."""


@dataclass(frozen=True, slots=True)
class Source:
    """An archive, and how it is treated."""

    profile: ArchiveProfile
    archive: Archive
    gate: Gate
    guest: Guest
    roads: Roads


@dataclass(frozen=True, slots=True)
class Tools:
    """Shared by the threads of a job; ``sources`` in the order in which they are asked, by name.

    ``completed`` is told of every task that has ended complete.
    """

    sources: Mapping[str, Source]
    sink: Sink
    disk: Disk
    derive: Derive
    deliveries: Deliveries
    ledger: Ledger
    board: Board
    stop: Stop
    room: Room
    audit: Audit
    exclusions: Exclusions = NOBODY
    completed: Callable[[int], None] = lambda _: None
