"""Associations with an archive: the factory, the pool, and the presentation contexts for C-GET.

:class:`AssociationFactory` opens associations. :class:`AssociationPool` keeps them open, one per thread and
SOP class, and replaces one that the archive has ended meanwhile. The functions at the end choose the storage
SOP classes and transfer syntaxes that a C-GET association proposes (PS3.8 9.3.2.2): an association has at
most 128 presentation contexts, which is too few for every pair of class and syntax.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from pydicom.config import IGNORE
from pydicom.uid import UID

from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE, describe_service
from dicom_quarry.errors import ConnectionLost, Rejected
from dicom_quarry.model import AE
from dicom_quarry.wire.c_store import DimseMessage
from dicom_quarry.wire.dimse import Command, c_cancel_rq
from dicom_quarry.wire.negotiation import MAX_CONTEXTS, Roles, is_storage
from dicom_quarry.wire.requestor import Requestor

T = TypeVar("T")

#: If an association had ended before a request, the first packet that comes back reports it.
_STALE_WITHIN_SECONDS = 1.0


class StaleAssociation(ConnectionLost):
    """A kept association had ended before the request reached the peer: send it again on a new one."""


class PooledAssociation:
    """An open association for the queries or retrievals of one SOP class."""

    def __init__(self, requestor: Requestor, sop_class: str) -> None:
        self.requestor = requestor
        self.sop_class = sop_class
        self.storage_classes: frozenset[str] = frozenset()  # SOP classes of the sub-operations of C-GET
        self.context_id, self.transfer_syntax = requestor.accepted[sop_class]
        self._request_count = 0
        self._sent_at = 0.0
        self._has_response = False

    def next_message_id(self) -> int:
        """Return a message ID that no recent request of this association had (PS3.7 E.1: 16 bits)."""
        return self._request_count % 0xFFFF + 1

    def send_request(self, request: Command, identifier: bytes = b"") -> None:
        """Send a request; raises ConnectionLost or StaleAssociation."""
        self._request_count += 1
        self._sent_at = time.monotonic()
        self._has_response = False
        try:
            self.requestor.send(request, identifier, context_id=self.context_id)
        except ConnectionLost as lost:
            raise self._classify_loss(lost) from lost

    def cancel(self, request: Command) -> None:
        """Send the C-CANCEL of a request (PS3.7 9.3.2.3); raises ConnectionLost."""
        self.requestor.send(c_cancel_rq(request.message_id), context_id=self.context_id)

    def receive_response(self, request: Command, timeout: float) -> DimseMessage | None:
        """Return the next response to this request, or None if none comes within ``timeout`` seconds.

        Any other message of the peer aborts the association, since later responses could not be assigned to a
        request. Raises ConnectionLost or StaleAssociation.
        """
        try:
            message = self.requestor.receive(timeout)
        except ConnectionLost as lost:
            raise self._classify_loss(lost) from lost
        if message is None:
            return None
        command = message.command
        if (command.field, command.message_id_responded_to) != (request.field | 0x8000, request.message_id):
            self.requestor.abort()
            detail = f"the archive answered {request.field.name} with another message ({command.field.name})"
            raise self._classify_loss(ConnectionLost(detail))
        self._has_response = True
        return message

    def _classify_loss(self, lost: ConnectionLost) -> ConnectionLost:
        """Return a StaleAssociation if the peer seems to have ended the association while it was idle."""
        is_immediate = time.monotonic() - self._sent_at < _STALE_WITHIN_SECONDS
        has_response = self._has_response or self.requestor.last_store_at > self._sent_at
        return (
            StaleAssociation(str(lost))
            if self._request_count > 1 and is_immediate and not has_response
            else lost
        )


#: Returns the association to use, given the kept one or None: the same, or a new one.
AssociationSelector = Callable[[PooledAssociation | None], PooledAssociation]


class AssociationPool:
    """Pool of associations, one per thread and SOP class; ``associate`` opens one and may raise."""

    def __init__(self, associate: Callable[[str], PooledAssociation]) -> None:
        self._associate = associate
        self._lock = threading.Lock()
        self._associations: dict[tuple[int, str], PooledAssociation] = {}
        self._in_use: set[tuple[int, str]] = set()
        self._closed = False

    def run(
        self,
        sop_class: str,
        operation: Callable[[PooledAssociation], T],
        select: AssociationSelector | None = None,
    ) -> T:
        """Run an operation on the calling thread's association; if that was stale, once more on a new one.

        ``select`` may replace the kept association by another one.
        """
        select = select or (lambda existing: existing or self._associate(sop_class))
        key = (threading.get_ident(), sop_class)
        with self._lock:
            self._in_use.add(key)
        try:
            return operation(self._acquire(key, select))
        except StaleAssociation:
            return operation(self._acquire(key, select))
        finally:
            with self._lock:
                self._in_use.discard(key)

    def _acquire(self, key: tuple[int, str], select: AssociationSelector) -> PooledAssociation:
        with self._lock:
            existing = self._associations.get(key)
        if existing is not None and not existing.requestor.check_idle():
            existing = None
        association = select(existing)
        if association is existing:
            return association
        with self._lock:
            closed = self._closed
            if not closed:
                self._associations[key] = association
        if closed:
            association.requestor.abort()
            raise ConnectionLost("the connections to the archive were closed by this side")
        return association

    def release_thread(self) -> None:
        """Release the calling thread's associations."""
        thread_id = threading.get_ident()
        with self._lock:
            released = [
                self._associations.pop(key) for key in list(self._associations) if key[0] == thread_id
            ]
        for association in released:
            association.requestor.release()

    def release_idle(self) -> None:
        """Release the associations that no thread uses now; a thread opens another one when it needs it."""
        with self._lock:
            released = [
                self._associations.pop(key) for key in list(self._associations) if key not in self._in_use
            ]
        for association in released:
            association.requestor.release()

    def close(self) -> None:
        """Abort every association; operations on other threads raise ConnectionLost."""
        with self._lock:
            self._closed = True
            associations = list(self._associations.values())
            self._associations.clear()
        for association in associations:
            association.requestor.abort()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time-outs of an archive, in seconds."""

    connect: float = 10.0  # to accept a connection
    associate: float = 30.0  # to answer the association request
    query: float = 60.0  # between two responses of a query
    cancel: float = 10.0  # to end a retrieval after its C-CANCEL


@dataclass(frozen=True, slots=True)
class AssociationFactory:
    """Factory of associations with one archive (``peer``), under our AE title (``calling``)."""

    peer: AE
    calling: str
    timeouts: Timeouts = Timeouts()
    tls: ssl.SSLContext | None = None

    def associate(
        self,
        sop_class: str,
        extra_contexts: Sequence[tuple[str, Sequence[str]]] = (),
        roles: Mapping[str, Roles] | None = None,
    ) -> PooledAssociation:
        """Open an association for a SOP class of queries or retrievals, and for ``extra_contexts``.

        Raises Unreachable, or Rejected, also if the archive does not accept the SOP class.
        """
        requestor = Requestor.connect(
            self.peer,
            calling=self.calling,
            contexts=[(sop_class, [IMPLICIT_LITTLE]), *extra_contexts],
            connect_timeout=self.timeouts.connect,
            answer_timeout=self.timeouts.associate,
            tls=self.tls,
            roles=roles,
        )
        if sop_class not in requestor.accepted:
            requestor.release()
            detail = f"{self.peer} does not offer {describe_service(sop_class)} to {self.calling}"
            raise Rejected(detail, permanent=True)
        return PooledAssociation(requestor, sop_class)


#: One presentation context is that of C-GET itself.
MAX_STORAGE_CONTEXTS = MAX_CONTEXTS - 1

# Transfer syntaxes in order of preference, which is roughly their frequency.
_UNCOMPRESSED = tuple(f"1.2.840.10008.1.2{end}" for end in (".1", "", ".1.99", ".2"))
_STILL_IMAGE = (
    *(f"1.2.840.10008.1.2.4.{number}" for number in (70, 90, 50, 91, 80, 51, 57, 81)),
    "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203, 92, 93)),
)
_VIDEO = tuple(
    f"1.2.840.10008.1.2.4.{number}"
    for number in (102, 100, 103, 101, 104, 107, 105, 106, 108, "102.1", "100.1", "103.1", "101.1")
)

# Words in the names of classes whose pixels may be compressed, and of those that may hold a video.
_PIXEL_CLASS_WORDS = ("Image", "Volume", "Segmentation", "Map", "RT Dose")
_VIDEO_CLASS_WORDS = ("Multi-frame", "Video")

_STORAGE_CLASS_PREFIX = "1.2.840.10008.5.1.4.1.1."
_IMAGE_CLASSES = (
    "2 4 128 7 1 1.1 1.2 6.1 3.1 12.1 12.2 20 1.1.1 1.2.1 1.3 2.1 4.1 4.3 130 13.1.3 13.1.1 13.1.2 "
    "7.1 7.2 7.3 7.4 6.2 12.1.1 12.2.1 77.1.1 77.1.2 77.1.3 77.1.4 77.1.5.1 77.1.5.2 77.1.5.4 77.1.6 "
    "77.1.1.1 77.1.2.1 77.1.4.1 481.1 481.2 66.4 30 6 3 5"
)
_OTHER_CLASSES = (
    "88.11 88.22 88.33 88.34 88.50 88.59 88.65 88.67 88.68 11.1 11.2 11.3 11.4 104.1 104.2 "
    "481.3 481.4 481.5 481.6 481.7 481.8 481.9 66 66.1 66.2 66.3 66.5 67 4.2 "
    "9.1.1 9.1.2 9.1.3 9.2.1 9.3.1"
)
#: Proposed if the archive does not list SOP classes: the common ones, and Siemens' CSA Non-Image Storage.
COMMON_SOP_CLASSES = frozenset(
    (
        *(_STORAGE_CLASS_PREFIX + end for end in f"{_IMAGE_CLASSES} {_OTHER_CLASSES}".split()),
        "1.3.12.2.1107.5.9.1",
    ),
)


def select_sop_classes(sop_classes: Iterable[str]) -> frozenset[str]:
    """Return the storage classes to propose for listed ones; an empty UID adds the common classes."""
    listed = frozenset(sop_classes)
    known = frozenset(uid for uid in listed if uid and is_storage(uid))
    return known if known and "" not in listed else known | COMMON_SOP_CLASSES


def fits_one_association(sop_classes: Iterable[str]) -> bool:
    """Return True if one association has a context for every pair of class and transfer syntax."""
    return sum(len(_transfer_syntaxes(uid)) for uid in sop_classes) <= MAX_STORAGE_CONTEXTS


def build_contexts(sop_classes: Iterable[str]) -> list[tuple[str, Sequence[str]]]:
    """Build the contexts to propose for these classes, at most MAX_STORAGE_CONTEXTS.

    If there are not enough for every pair of class and transfer syntax, several syntaxes share a context; the
    archive then chooses one of them (PS3.8 9.3.3.2).
    """
    wanted = {
        uid: _transfer_syntaxes(uid) for uid in sorted(sop_classes, key=_sort_key)[:MAX_STORAGE_CONTEXTS]
    }
    shares = dict.fromkeys(wanted, 1)
    left = MAX_STORAGE_CONTEXTS - len(wanted)
    while left:
        short = [uid for uid, syntaxes in wanted.items() if shares[uid] < len(syntaxes)][:left]
        if not short:
            break
        shares.update((uid, shares[uid] + 1) for uid in short)
        left -= len(short)
    return [
        (uid, part)
        for uid, syntaxes in wanted.items()
        for part in _distribute_syntaxes(syntaxes, shares[uid])
    ]


def group_series(series: Mapping[str, frozenset[str]]) -> list[dict[str, frozenset[str]]]:
    """Group series, with their classes, so that each group fits one association; one too large is alone."""
    groups: list[dict[str, frozenset[str]]] = []
    for uid, sop_classes in sorted(series.items(), key=lambda item: sorted(item[1])):
        if groups and fits_one_association(sop_classes.union(*groups[-1].values())):
            groups[-1][uid] = sop_classes
        else:
            groups.append({uid: sop_classes})
    return groups


def _distribute_syntaxes(syntaxes: tuple[str, ...], share: int) -> list[tuple[str, ...]]:
    """Distribute syntaxes over ``share`` contexts, most of them with one syntax.

    Uncompressed and compressed syntaxes share no context, unless there is only one.
    """
    plain, compressed = syntaxes[: len(_UNCOMPRESSED)], syntaxes[len(_UNCOMPRESSED) :]
    if share == 1 or not compressed:
        return _partition(syntaxes, share)
    of_plain = max(1, share - len(compressed))
    return _partition(plain, of_plain) + _partition(compressed, share - of_plain)


def _partition(syntaxes: tuple[str, ...], parts: int) -> list[tuple[str, ...]]:
    return [*((one,) for one in syntaxes[: parts - 1]), syntaxes[parts - 1 :]]


def _sort_key(uid: str) -> tuple[bool, str]:
    return len(_transfer_syntaxes(uid)) == len(_UNCOMPRESSED), uid


@lru_cache(maxsize=256)
def _transfer_syntaxes(sop_class: str) -> tuple[str, ...]:
    """Return the transfer syntaxes to propose for a SOP class."""
    # pydicom's validation would log the archive's text.
    name = UID(sop_class, validation_mode=IGNORE).name
    if name == sop_class or any(word in name for word in _VIDEO_CLASS_WORDS):
        return _UNCOMPRESSED + _STILL_IMAGE + _VIDEO
    return _UNCOMPRESSED + _STILL_IMAGE if any(word in name for word in _PIXEL_CLASS_WORDS) else _UNCOMPRESSED
