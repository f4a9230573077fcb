"""The archive as Quarry sees it: one port, several adapters, one contract suite in the tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dicom_quarry.model import InstanceRef, Level, Listing, SeriesInfo, Sink, Study, Task, Transport


class Verdict(StrEnum):
    """What a final status says about what to do; never whether the task is complete."""

    SUCCESS = "success"
    WARNING = "warning"  # finished with failed sub-operations
    RETRY = "retry"  # out of resources, unable to process: the same question may be answered later
    UNSUPPORTED = "unsupported"  # not at this level or in this model: ask another way
    CONFIGURATION = "configuration"  # destination unknown, not authorised: a person must act
    CANCELLED = "cancelled"
    LOST = "lost"  # no final status: abort, cut connection, or the watch gave up


@dataclass(slots=True)
class QueryRows:
    """What a query brought: values by tag. ``why`` is empty where nothing suggests that there is more."""

    rows: list[dict[int, str]] = field(default_factory=list)
    incomplete_reason: str = ""


@dataclass(frozen=True, slots=True)
class StudyQueryResult:
    """Answers to a STUDY level query; ``complete`` is False when the archive capped them or broke off."""

    studies: tuple[Study, ...]
    complete: bool = True
    incomplete_reason: str = ""


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """What to have sent: a study; or, where given, only these series; or these instances of one series.

    ``road`` says how, where an archive has several.
    ``sop_classes`` are those of the instances by Series Instance UID, as far as the archive lists them.
    """

    study_uid: str
    patient_id: str = ""
    series_uids: tuple[str, ...] = ()
    sop_uids: tuple[str, ...] = ()
    transport: Transport = Transport.MOVE
    sop_classes_by_series: Mapping[str, frozenset[str]] = field(default_factory=dict, compare=False)

    @property
    def level(self) -> Level:
        """The Query/Retrieve level that this question is put at."""
        if self.sop_uids:
            return Level.IMAGE
        return Level.SERIES if self.series_uids else Level.STUDY


@dataclass(frozen=True, slots=True)
class RetrieveResult:
    """How a retrieval ended, as the archive tells it; counters are None where it did not count.

    ``status`` is DIMSE's. ``retry_after``: for so many seconds a busy archive wants to be left alone, 0 where
    it did not say; None for one that is not busy.
    """

    verdict: Verdict
    status: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    failed_uids: tuple[str, ...] = ()
    comment: str = ""
    retry_after: float | None = None


#: Of several answers the first of these that occurs speaks for all.
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
    """The answer that speaks for all of them."""
    return min(results, key=lambda one: _WORST_FIRST.index(one.verdict))


def group_sop_classes(instances: Iterable[InstanceRef]) -> dict[str, frozenset[str]]:
    """The SOP classes that are listed, by series; an empty one where the archive left some out."""
    found: dict[str, set[str]] = {}
    for ref in instances:
        found.setdefault(ref.series_uid, set()).add(ref.sop_class)
    return {series_uid: frozenset(classes) for series_uid, classes in found.items()}


class MonitorAction(StrEnum):
    """What the owner of a retrieval wants done with it now."""

    WAIT = "wait"
    CANCEL = "cancel"  # C-CANCEL, then wait for the final response a little while
    ABORT = "abort"


class RetrieveMonitor(Protocol):
    """Looks on while a retrieval runs, and owns its time-outs."""

    def on_activity(self, completed: int | None, remaining: int | None, /) -> None:
        """The archive said something: a pending response, with its counters where it gave them."""

    def next_action(self) -> MonitorAction:
        """Asked about once a second while nothing is heard."""


class Archive(Protocol):
    """One archive. Methods may be called from several threads; each thread has its own association.

    All raise ArchiveError: Unreachable, Rejected or Lost for the road, QueryFailed for the answer.
    """

    @property
    def name(self) -> str:
        """The archive's name in the configuration, for messages and the ledger."""

    def probe(self) -> None:
        """Verify that the archive answers (C-ECHO, PS3.4 A.4)."""

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        """Studies that the archive returns for these keys (PS3.4 C.4.1), each Study UID once.

        Nothing is filtered here: the caller matches the answers against the keys again.
        """

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series that the archive holds of a study (SERIES level), for a filter to choose from."""

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task: SERIES level, then IMAGE level of every series."""

    def retrieve(self, request: RetrieveRequest, sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        """Have instances sent, and return when the archive says that it has finished.

        Instances may arrive by way of ``sink`` (C-GET, WADO-RS) or of a receiver elsewhere (C-MOVE), and may
        go on arriving after the return. A lost association is an answer (Verdict.LOST); Unreachable and
        Rejected are raised, nothing having been asked.
        """

    def release_thread(self) -> None:
        """Release the calling thread's associations."""

    def close(self) -> None:
        """Release every association; calls in progress end as Lost."""


@dataclass(frozen=True, slots=True)
class StatusMeaning:
    """A verdict, a sentence for a person, and what that person can do where anything can be done."""

    verdict: Verdict
    sentence: str
    next_step: str = ""
