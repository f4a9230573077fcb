"""What the work on a task is done with: the sources it may come from, and the places it goes to."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from dicom_quarry.archive.port import Answered, Archive, Verdict
from dicom_quarry.config import ArchiveProfile
from dicom_quarry.errors import Unusable
from dicom_quarry.extraction.deliveries import Deliveries
from dicom_quarry.extraction.gate import Gate
from dicom_quarry.extraction.guest import Guest
from dicom_quarry.extraction.progress import Board
from dicom_quarry.extraction.room import Room
from dicom_quarry.extraction.stop import Stop
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reading import Derive
from dicom_quarry.model import Receipt, Sink

#: So many studies asked for in vain, and none ever served, point at us: it is not known where to send to.
_VAIN = 3

_DESTINATION_UNKNOWN = 0xA801

#: Out of resources for sub-operations: what many archives say that cannot reach the destination.
_NO_SUBOPERATIONS = 0xA702


class Disk(Protocol):
    """What the job needs of the store beside its Sink."""

    def adopt(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Instances that lie whole in a folder."""

    def bring_in(self, receipt: Receipt, apart: str) -> Receipt:
        """Move an instance out of the folder where it was kept apart."""

    def sync_directories(self, paths: Iterable[PurePosixPath]) -> None:
        """Make the names of these files durable, up to the root."""


class Service:
    """Whether an archive sends anything to us at all; ``served`` is True where it did in an earlier run."""

    def __init__(self, destination: str, *, served: bool) -> None:
        self._destination = destination
        self._served = served
        self._vain: set[int] = set()
        self._lock = threading.Lock()

    def judge(self, task_id: int, answered: Answered, gained: int) -> None:
        """Learn from a retrieval; raises Unusable where a person has to act before another is of use."""
        with self._lock:
            self._served = self._served or gained > 0
            if answered.status == _DESTINATION_UNKNOWN or (
                answered.verdict is Verdict.CONFIGURATION and not self._served
            ):
                raise Unusable(f"{answered.comment}. It was asked to send to {self._destination}")
            if self._served or not _in_vain(answered):
                return
            # Studies, not tries: one that cannot be sent says nothing of the others.
            self._vain.add(task_id)
            if len(self._vain) < _VAIN:
                return
        raise Unusable(
            f"it has sent nothing of {_VAIN} studies asked for, and says: {answered.comment}. "
            f"It may not know {self._destination}, or not reach it: ask the PACS team to register that AE "
            "title with this computer's address and port, and to let it through the firewall"
        )


def _in_vain(answered: Answered) -> bool:
    """It could send nothing; or says that it did, though nothing came."""
    status = answered.status or 0
    unable = status >> 12 == 0xC or status == _NO_SUBOPERATIONS or answered.verdict is Verdict.WARNING
    pretends = answered.verdict is Verdict.SUCCESS and bool(answered.completed)
    return pretends or (unable and not answered.completed)


@dataclass(frozen=True, slots=True)
class Source:
    """An archive, and how it is treated."""

    profile: ArchiveProfile
    archive: Archive
    gate: Gate
    guest: Guest
    service: Service


@dataclass(frozen=True, slots=True)
class Tools:
    """Shared by the threads of a job; ``sources`` in the order in which they are asked, by name."""

    sources: Mapping[str, Source]
    sink: Sink
    disk: Disk
    derive: Derive
    deliveries: Deliveries
    ledger: Ledger
    board: Board
    stop: Stop
    room: Room
