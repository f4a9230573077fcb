"""The interface of an archive: one protocol class, several adapters, one contract suite in the tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dicom_quarry.model import InstanceRef, Level, Listing, SeriesInfo, Sink, Study, Task, Transport

#: Final statuses of an archive that lacks resources: later, or less at once (PS3.4 C.4.2.1.5, PS3.7 C).
BUSY_STATUSES = frozenset({0xA700, 0xA701, 0x0213})

#: Final statuses of an archive whose sub-operations fail: it cannot connect to us, or we refuse it.
CANNOT_SEND_STATUSES = frozenset({0xA702, 0xC502})


class Verdict(StrEnum):
    """The next action after a final status; never a proof that the task is complete."""

    SUCCESS = "success"
    WARNING = "warning"  # finished with failed sub-operations
    RETRY = "retry"  # out of resources, unable to process: the same request may succeed later
    UNSUPPORTED = "unsupported"  # not at this level or in this model: another kind of request is needed
    CONFIGURATION = "configuration"  # destination unknown, not authorised: a person must act
    CANCELLED = "cancelled"
    LOST = "lost"  # no final status: abort, cut connection, or the monitor ended it


@dataclass(slots=True)
class QueryRows:
    """The results of a query: values by tag. ``incomplete_reason`` is empty unless results may be missing.

    ``splittable`` is False if narrower queries cannot complete an incomplete result, because answers cannot
    be used; True if the archive ended the query at a limit. ``repeated`` is the number of answers that are
    not in ``rows``, because they only repeat one or were not requested. ``charset`` is the
    SpecificCharacterSet of the answers, where one has it.
    """

    rows: list[dict[int, str]] = field(default_factory=list)
    incomplete_reason: str = ""
    splittable: bool = True
    repeated: int = 0
    charset: str = ""

    @property
    def answer_count(self) -> int:
        """The number of answers that the archive sent, to be compared with its limit."""
        return len(self.rows) + self.repeated


@dataclass(frozen=True, slots=True)
class StudyQueryResult:
    """The results of a query at STUDY level; ``complete`` is False where the archive left some out.

    ``splittable`` is False if narrower queries cannot complete an incomplete result; see QueryRows.
    ``answer_count`` includes answers that are repeated or cannot be used. ``unidentified`` are the answers
    without a usable Study Instance UID, if the result is incomplete for these alone.
    """

    studies: tuple[Study, ...]
    complete: bool = True
    incomplete_reason: str = ""
    splittable: bool = True
    answer_count: int = 0
    unidentified: tuple[Study, ...] = ()


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """The data to retrieve: a study; or, where given, only these series; or these instances of one series.

    ``transport`` selects the method of an archive that has several. ``sop_classes_by_series`` has the SOP
    classes that the archive lists, by Series Instance UID, and ``modalities`` the modalities. ``is_repeat``
    is True if data of the same task was requested before.
    """

    study_uid: str
    patient_id: str = ""
    series_uids: tuple[str, ...] = ()
    sop_uids: tuple[str, ...] = ()
    transport: Transport = Transport.MOVE
    sop_classes_by_series: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)
    modalities: Mapping[str, str] = field(default_factory=dict, compare=False)
    is_repeat: bool = field(default=False, compare=False)

    @property
    def level(self) -> Level:
        """The Query/Retrieve level of this request."""
        if self.sop_uids:
            return Level.IMAGE
        return Level.SERIES if self.series_uids else Level.STUDY


@dataclass(frozen=True, slots=True)
class RetrieveResult:
    """The end of a retrieval as the archive reports it; counters are None where it gave none.

    ``status`` is DIMSE's. ``retry_after`` is the pause in seconds that a busy archive wants, 0 where it names
    none; None for an archive that is not busy. ``refused_classes`` are SOP classes that it does not send by
    this transport.
    """

    verdict: Verdict
    status: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()
    comment: str = ""
    retry_after: float | None = None
    refused_classes: frozenset[str] = frozenset()


#: The order in which one of several results represents them all.
_WORST_FIRST = (
    Verdict.CONFIGURATION,
    Verdict.LOST,
    Verdict.RETRY,
    Verdict.CANCELLED,
    Verdict.UNSUPPORTED,
    Verdict.WARNING,
    Verdict.SUCCESS,
)


def worst_result(results: Iterable[RetrieveResult]) -> RetrieveResult:
    """Return the worst of several results."""
    return min(results, key=lambda one: _WORST_FIRST.index(one.verdict))


def group_sop_classes(instances: Iterable[InstanceRef]) -> dict[str, frozenset[str]]:
    """Return the listed SOP classes by series; an empty class stands for an instance without one."""
    found: dict[str, set[str]] = {}
    for ref in instances:
        found.setdefault(ref.series_uid, set()).add(ref.sop_class)
    return {series_uid: frozenset(classes) for series_uid, classes in found.items()}


class MonitorAction(StrEnum):
    """The decision of a retrieval's owner."""

    WAIT = "wait"
    CANCEL = "cancel"  # C-CANCEL, then wait a short time for the final response
    ABORT = "abort"


class RetrieveMonitor(Protocol):
    """The owner of a running retrieval and of its time-outs."""

    def on_request(self, message_id: int, /) -> None:
        """Note the message ID of the C-MOVE, before it is sent: instances may repeat it."""

    def on_activity(self, completed: int | None, remaining: int | None, /) -> None:
        """Note a sign of progress, with the archive's counters; None where it gave none."""

    def next_action(self) -> MonitorAction:
        """Return whether to continue; called about once a second."""

    def has_received(self) -> bool:
        """Return True if an instance has come by this transport: the archive can reach the receiver."""


class Archive(Protocol):
    """One archive. Methods may be called from several threads; each thread has its own connection.

    All raise ArchiveError: Unreachable, Rejected or ConnectionLost for the connection, QueryFailed for a
    query, OperatorActionRequired where a person must act.
    """

    @property
    def name(self) -> str:
        """The archive's name in the configuration, for messages and the ledger."""

    def probe(self) -> None:
        """Verify that the archive answers (C-ECHO, PS3.4 A.4; over DICOMweb a query)."""

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Return the studies that the archive finds for these keys (PS3.4 C.4.1), each Study UID once.

        Nothing is filtered here: the caller compares the results with the keys again.
        """

    def count_studies(self, patient_id: str) -> int | None:
        """Return the archive's own number of a patient's studies (PS3.4 C.6.1.1.2), None if it gives none."""

    def list_series(self, study: Study, attributes: Collection[str] = ()) -> tuple[SeriesInfo, ...]:
        """Return the series of a study (SERIES level), for a filter on ``attributes`` to choose from.

        Attributes that no series has are requested at IMAGE level.
        """

    def stop_requesting_counts(self) -> None:
        """Query without counts from now on: the archive merges answers if they are requested."""

    def list_instances(self, task: Task) -> Listing:
        """List the instances of the task: SERIES level, then IMAGE level of every series.

        Some archives merge answers into one if their query requests counts. Where counts and list differ, the
        adapter queries without counts; the list is doubtful if that shows more, and the study was found
        before: other studies of its rows may be missing. ``find`` then returns them.
        """

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Have instances sent; return when the archive reports the end.

        Instances arrive in ``sink`` (C-GET, WADO-RS) or at a separate receiver (C-MOVE), where they may go on
        arriving after the return. A lost connection is a result (Verdict.LOST). Unreachable and Rejected are
        raised before anything was requested.
        """

    def release_thread(self) -> None:
        """Release the calling thread's connections."""

    def release_idle(self) -> None:
        """Release the connections of all threads that no request uses now; from any thread."""

    def close(self) -> None:
        """Release every connection; calls in progress end as ConnectionLost."""


@dataclass(frozen=True, slots=True)
class StatusMeaning:
    """A verdict, a sentence for a person, and the next step for that person, if there is one."""

    verdict: Verdict
    sentence: str
    next_step: str = ""
