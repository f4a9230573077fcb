"""The next step of a task, decided from its listing, its stored instances and its rounds. Pure.

A status of the archive is never proof: a task is complete when every listed instance is stored and nothing
suggests a longer list. :mod:`dicom_quarry.system.backoff` lists the other layers that retry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicom_quarry.archive.base import RetrieveRequest, Verdict, group_sop_classes
from dicom_quarry.model import InstanceRef, Level, Listing, Task, Transport
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS, backoff

#: UIDs in one IMAGE level request: long lists exceed the identifier limits of some archives.
IMAGE_BATCH_SIZE = 100

#: Instance Availability of studies that are not on disk (PS3.3 C.4.23.1.1), and the first pause, in seconds,
#: for their recall.
_NEARLINE_AVAILABILITY = frozenset({"NEARLINE", "OFFLINE"})
_RECALL_PAUSE = 600.0

_UNABLE_TO_COUNT_MATCHES = 0xA701

#: SOP classes of a series whose instances are not listed.
_UNKNOWN_SOP_CLASSES = frozenset({""})

#: Rounds at IMAGE level without a new instance before the archive lists the study again.
_MAX_IMAGE_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Round:
    """One or more requests at one level, and their result."""

    level: Level
    verdict: Verdict
    newly_stored: int
    status: int | None = None
    comment: str = ""
    transport: Transport = Transport.MOVE


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """The known state of a task.

    ``stored`` are the instances by SOP Instance UID. ``transports`` are those in use, in the order in which
    they are tried; ``failures`` counts, by transport, the last fruitless rounds of earlier runs.
    ``listing_count`` is 1, and one more for every listing since an instance arrived. ``sent_count`` is the
    largest number of instances that a retrieval of the whole study reported. ``mismatch`` is the attribute
    in which an instance differs from the study, ``exclusion`` the key by which one is on an exclusion list.
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
    nearline_timeout: float = 0.0
    transports: tuple[Transport, ...] = (Transport.MOVE,)

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


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Retrieve these instances."""

    requests: tuple[RetrieveRequest, ...]


@dataclass(frozen=True, slots=True)
class Relist:
    """List the study again."""


@dataclass(frozen=True, slots=True)
class Postpone:
    """Continue the task after this many seconds; ``why`` is for the user."""

    seconds: float
    why: str = "the archive is busy"


@dataclass(frozen=True, slots=True)
class Finish:
    """End the task; ``code`` is in the catalogue of outcomes."""

    code: str
    details: Mapping[str, object] = field(default_factory=dict)


Step = Retrieve | Relist | Postpone | Finish


def next_step(snapshot: TaskSnapshot, *, jitter: float = 0.5) -> Step:
    """Return the next step of a task; ``jitter`` from 0 to 1 spreads the delays of several jobs."""
    if snapshot.exclusion:
        return finish_excluded(snapshot.exclusion, len(snapshot.stored), "excluded_on_arrival")
    lacking = bool(snapshot.missing) if snapshot.listing.lists_instances else _lacks_by_count(snapshot)
    step = _retrieve_more(snapshot, jitter) if lacking else _finish_listed(snapshot)
    if snapshot.mismatch and isinstance(step, Finish):
        # A wrong identity is reported before a wrong number.
        return Finish("stored_differs", {"keys": snapshot.mismatch})
    return step


def finish_excluded(keys: str, stored: int, code: str = "study_excluded") -> Finish:
    """Return the end of an excluded task; a person has to remove the instances that are stored."""
    return Finish("excluded_but_stored" if stored else code, {"keys": keys, "stored": stored})


def _lacks_by_count(snapshot: TaskSnapshot) -> bool:
    """Return True if instances are missing of a study whose instances the archive cannot list.

    Fewer are stored than counted; or there is no count, and no retrieval ended with a success or a warning.
    The instances of an earlier run prove nothing: it may have been interrupted.
    """
    if len(snapshot.stored) < snapshot.claimed_count:
        return True
    answered = any(one.verdict in (Verdict.SUCCESS, Verdict.WARNING) for one in snapshot.rounds)
    return not snapshot.queried_count and not answered


def _retrieve_more(snapshot: TaskSnapshot, jitter: float) -> Step:
    """Return the next step of the first transport that has one."""
    step = _retrieve_by_transport(snapshot.for_transport(snapshot.transport), jitter)
    if isinstance(step, Finish) and snapshot.transports[1:]:
        return _retrieve_more(replace(snapshot, transports=snapshot.transports[1:]), jitter)
    return step


def _retrieve_by_transport(snapshot: TaskSnapshot, jitter: float) -> Step:
    last = snapshot.rounds[-1] if snapshot.rounds else None
    failures = _fruitless_rounds(snapshot)
    if last and last.verdict is Verdict.CONFIGURATION:
        return _give_up(snapshot)
    if failures >= MAX_FRUITLESS_ROUNDS and snapshot.task.study.availability not in _NEARLINE_AVAILABILITY:
        return _give_up(snapshot)
    if (
        last
        and not last.newly_stored
        and last.verdict in (Verdict.RETRY, Verdict.LOST)
        and not _too_large(last)
    ):
        return Postpone(backoff(failures, jitter))
    if last and not snapshot.stored and snapshot.task.study.availability in _NEARLINE_AVAILABILITY:
        return _wait_for_recall(snapshot, failures, jitter)
    requests = _next_requests(snapshot)
    if requests:
        is_repeat = any(one.verdict not in (Verdict.LOST, Verdict.RETRY) for one in snapshot.rounds)
        return Retrieve(_with_sop_classes(requests, snapshot.listing, is_repeat=is_repeat))
    return Relist() if snapshot.listing_count < 2 else _give_up(snapshot)


def _too_large(last: Round) -> bool:
    """Return True if the archive could not count the matches: request less at once (PS3.4 C.4.2.1.5)."""
    return last.level is Level.STUDY and last.status == _UNABLE_TO_COUNT_MATCHES


def _wait_for_recall(snapshot: TaskSnapshot, failures: int, jitter: float) -> Step:
    """Wait until the archive has recalled a study from tape, with few requests meanwhile."""
    pauses = [backoff(failure, 0.5, initial=_RECALL_PAUSE, maximum=3600.0) for failure in range(1, failures)]
    if sum(pauses) >= snapshot.nearline_timeout:
        return _give_up(snapshot)
    seconds = backoff(failures, jitter, initial=_RECALL_PAUSE, maximum=3600.0)
    return Postpone(
        seconds, f"the study is {snapshot.task.study.availability.lower()}, and the archive is recalling it"
    )


def _fruitless_rounds(snapshot: TaskSnapshot) -> int:
    fruitless = 0
    for one in reversed(snapshot.rounds):
        if one.newly_stored:
            return fruitless
        fruitless += 1
    return fruitless + snapshot.failures.get(snapshot.transport, 0)


def _next_requests(snapshot: TaskSnapshot) -> tuple[RetrieveRequest, ...]:
    """Return the next narrower requests: the study, then series without an instance, then instances."""
    study = snapshot.task.study
    levels = Counter(one.level for one in snapshot.rounds)
    selected = sorted(snapshot.task.selection.series)
    narrower = snapshot.stored and (snapshot.listing.lists_instances or snapshot.listing.series_uids)
    if not snapshot.rounds and not narrower and not selected:
        return (RetrieveRequest(study.study_uid, study.patient_id, transport=snapshot.transport),)
    if not levels[Level.SERIES]:
        series = _series_to_retrieve(snapshot)
        if series:
            return tuple(
                RetrieveRequest(study.study_uid, study.patient_id, (uid,), transport=snapshot.transport)
                for uid in series
            )
    last = snapshot.rounds[-1] if snapshot.rounds else None
    if levels[Level.IMAGE] < _MAX_IMAGE_ROUNDS or (last and last.newly_stored):
        return _image_requests(snapshot)
    return ()


def _series_to_retrieve(snapshot: TaskSnapshot) -> list[str]:
    """Return the series without a stored instance; every series if instances cannot be listed."""
    if not snapshot.listing.lists_instances:
        return list(snapshot.listing.series_uids)
    missing = Counter(ref.series_uid for ref in snapshot.missing)
    listed = Counter(ref.series_uid for ref in snapshot.listing.instances)
    return [uid for uid, count in missing.items() if count == listed[uid]]


def _image_requests(snapshot: TaskSnapshot) -> tuple[RetrieveRequest, ...]:
    by_series: dict[str, list[str]] = {}
    for ref in snapshot.missing:
        by_series.setdefault(ref.series_uid, []).append(ref.sop_uid)
    study = snapshot.task.study
    return tuple(
        RetrieveRequest(
            study.study_uid,
            study.patient_id,
            (series_uid,),
            tuple(uids[start : start + IMAGE_BATCH_SIZE]),
            snapshot.transport,
        )
        for series_uid, uids in by_series.items()
        for start in range(0, len(uids), IMAGE_BATCH_SIZE)
    )


def _with_sop_classes(
    requests: Sequence[RetrieveRequest], listing: Listing, *, is_repeat: bool
) -> tuple[RetrieveRequest, ...]:
    """Return the requests with the listed SOP classes and modalities of their instances."""
    classes = group_sop_classes(listing.instances)
    return tuple(
        replace(
            request,
            sop_classes_by_series={
                uid: classes.get(uid, _UNKNOWN_SOP_CLASSES) for uid in request.series_uids or classes
            },
            modalities=listing.modalities,
            is_repeat=is_repeat,
        )
        for request in requests
    )


def _give_up(snapshot: TaskSnapshot) -> Finish:
    last = snapshot.rounds[-1] if snapshot.rounds else None
    if snapshot.stored:
        return _finish_incomplete(snapshot)
    status = _status_text(last)
    if last and last.verdict is Verdict.LOST:
        return Finish("gave_up_waiting", {"why": status, "attempts": _fruitless_rounds(snapshot)})
    if last and last.verdict in (Verdict.CONFIGURATION, Verdict.RETRY, Verdict.UNSUPPORTED):
        return Finish("archive_refused", {"status": status})
    expected = len(snapshot.listing.instances) if snapshot.listing.lists_instances else snapshot.claimed_count
    return Finish("nothing_arrived", {"expected": expected, "status": status})


def _finish_incomplete(snapshot: TaskSnapshot) -> Finish:
    if snapshot.listing.lists_instances:
        expected, missing = len(snapshot.listing.instances), len(snapshot.missing)
    else:
        expected, missing = snapshot.claimed_count, snapshot.claimed_count - len(snapshot.stored)
    if missing > 0:
        return Finish("instances_missing", {"missing": missing, "expected": expected})
    return Finish("archive_cannot_list", {"stored": len(snapshot.stored)})


def _status_text(last: Round | None) -> str:
    if last is None:
        return "the requests were made in an earlier run"
    if last.status is None:
        return last.comment or "no final answer"
    return f"{last.status:04X}H {last.comment}".strip()


def _finish_listed(snapshot: TaskSnapshot) -> Step:
    """Return the end of a task whose listed instances are all stored; list again if the list is doubtful."""
    stored = len(snapshot.stored)
    if not snapshot.listing.lists_instances:
        return Finish("archive_cannot_list", {"stored": stored}) if stored else Finish("no_instances_listed")
    doubtful = snapshot.claimed_count > stored or snapshot.unlisted_count > 0 or not snapshot.listing.complete
    if doubtful and snapshot.listing_count < 2:
        return Relist()
    if not snapshot.listing.complete:
        return Finish("list_cut_short", {"stored": stored, "why": snapshot.listing.incomplete_reason})
    if snapshot.claimed_count > stored:
        if not stored:
            return Finish(
                "nothing_arrived", {"expected": snapshot.claimed_count, "status": "it lists none of them"}
            )
        return Finish("count_disagrees", {"stored": stored, "count": snapshot.claimed_count})
    if snapshot.unlisted_count > 0:
        return Finish("unlisted_arrived", {"extra": snapshot.unlisted_count})
    if snapshot.conflicts:
        return Finish("content_conflict", {"conflicts": snapshot.conflicts})
    if not stored:
        return Finish("no_instances_listed")
    return Finish("all_listed_stored", {"instances": stored})
