"""The known state of a task, from which its next step is decided. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicom_quarry.archive.base import RetrieveResult, Verdict
from dicom_quarry.extraction.refusals import Refusal
from dicom_quarry.model import InstanceRef, Level, Listing, Task, Transport

_DESTINATION_UNKNOWN = 0xA801

#: Final statuses that have nothing to do with what was requested (PS3.4 C.4.2.1.5, PS3.7 annex C): the
#: archive is busy, or cannot connect to the receiver. A narrower request would only be one more.
_GENERAL_FAILURES = frozenset({0xA700, 0x0210, 0x0213, 0xC502})

#: Instance Availability of studies that are not on disk (PS3.3 C.4.23.1.1).
_NEARLINE_AVAILABILITY = frozenset({"NEARLINE", "OFFLINE"})


@dataclass(frozen=True, slots=True)
class Round:
    """One or more requests at one level, and their worst result.

    ``refused_classes`` are the SOP classes that the archive does not send by this transport; ``series_uids``
    the series that were requested whole. ``refusal`` is why our own receiver did not take instances.
    """

    level: Level
    verdict: Verdict
    newly_stored: int
    status: int | None = None
    comment: str = ""
    transport: Transport = Transport.MOVE
    retry_after: float | None = None
    refused_classes: frozenset[str] = frozenset()
    series_uids: frozenset[str] = frozenset()
    refusal: Refusal | None = None


def may_concern_request(result: RetrieveResult | Round, *, is_proven: bool) -> bool:
    """Return True if another or a narrower request may succeed where this one failed.

    The archive cannot, or may not, send one series or instance, and answers so for the whole request.
    ``is_proven``: instances have come from it by the same transport.
    """
    match result.verdict:
        case Verdict.LOST:
            return False
        case Verdict.RETRY:
            return result.status not in _GENERAL_FAILURES and result.retry_after is None
        case Verdict.CONFIGURATION:
            return is_proven and result.status not in (None, _DESTINATION_UNKNOWN)
        case _:
            return True


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """The known state of a task.

    ``stored`` are the instances by SOP Instance UID. ``transports`` are those in use, in the order in which
    they are tried; ``proven`` are those by which an instance has come from this archive. ``failures`` counts,
    by transport, the last fruitless tries before this one: the rounds between two pauses are one try.
    ``listing_count`` is 1, and one more for every listing since an instance arrived. ``sent_count`` is the
    largest number of instances that a retrieval of the whole study reported. ``mismatch`` is the attribute
    in which an instance differs from the study, ``exclusion`` the key by which one is on an exclusion list.
    ``names_other_study``: an instance came that names another study, and was refused.
    ``nearline_timeout`` is the time in seconds to wait for the recall of a study from tape.
    """

    task: Task
    listing: Listing
    stored: Mapping[str, object]
    rounds: Sequence[Round] = ()
    listing_count: int = 1
    failures: Mapping[Transport, int] = field(default_factory=dict)
    sent_count: int = 0
    conflicts: int = 0
    mismatch: str = ""
    exclusion: str = ""
    names_other_study: bool = False
    nearline_timeout: float = 0.0
    transports: tuple[Transport, ...] = (Transport.MOVE,)
    proven: frozenset[Transport] = frozenset()

    @property
    def transport(self) -> Transport:
        """The transport that is tried now."""
        return self.transports[0]

    def for_transport(self, transport: Transport) -> TaskSnapshot:
        """Return the same snapshot with the rounds of one transport alone: the others do not count for it."""
        return replace(
            self, transports=(transport,), rounds=[one for one in self.rounds if one.transport is transport]
        )

    @property
    def missing(self) -> list[InstanceRef]:
        """The listed instances that are not stored."""
        return [ref for ref in self.listing.instances if ref.sop_uid not in self.stored]

    @property
    def sendable(self) -> list[InstanceRef]:
        """The missing instances without those whose SOP class the archive does not send."""
        return [ref for ref in self.missing if ref.sop_class not in self.refused_classes]

    @property
    def is_nearline(self) -> bool:
        """True if the study is not on a disk of the archive."""
        return self.task.study.availability in _NEARLINE_AVAILABILITY

    @property
    def fruitless_rounds(self) -> list[Round]:
        """The rounds since the last one that brought an instance."""
        gains = [number for number, one in enumerate(self.rounds, 1) if one.newly_stored]
        return list(self.rounds[max(gains, default=0) :])

    @property
    def earlier_failures(self) -> int:
        """The fruitless tries before this one; none once an instance has come in this one."""
        has_gained = any(one.newly_stored for one in self.rounds)
        return 0 if has_gained else self.failures.get(self.transport, 0)

    @property
    def fruitless_tries(self) -> int:
        """The tries since the last instance came, this one included."""
        return self.earlier_failures + bool(self.fruitless_rounds)

    @property
    def refused_classes(self) -> frozenset[str]:
        """The SOP classes that the archive does not send by the transports of these rounds."""
        return frozenset[str]().union(*(one.refused_classes for one in self.rounds))

    @property
    def unlisted_count(self) -> int:
        """The number of stored instances that the archive does not list."""
        return len(self.stored) - (len(self.listing.instances) - len(self.missing))

    @property
    def queried_count(self) -> int:
        """The largest number of instances in a query result; 0 if no result had one."""
        whole_study = not self.task.selection.series
        return max(self.listing.count or 0, (self.task.study.instance_count or 0) if whole_study else 0)

    @property
    def claimed_count(self) -> int:
        """The largest number of instances that any query result or retrieval reported."""
        return max(self.queried_count, self.sent_count)
