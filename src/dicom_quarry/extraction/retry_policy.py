"""The next step of a task, decided from its listing, its stored instances and its rounds. Pure.

A status of the archive is never proof: a task is complete when every listed instance is stored and nothing
suggests a longer list. :mod:`dicom_quarry.system.backoff` lists the other layers that retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dicom_quarry.archive.base import BUSY_STATUSES, CANNOT_SEND_STATUSES, RetrieveRequest, Verdict
from dicom_quarry.archive.dimse.identifier import describe_sop_classes
from dicom_quarry.extraction.narrowing import next_requests, with_sop_classes
from dicom_quarry.extraction.refusals import Refusal
from dicom_quarry.extraction.task_snapshot import Round, TaskSnapshot, may_concern_request
from dicom_quarry.model import Level
from dicom_quarry.system.backoff import MAX_FRUITLESS_ROUNDS, backoff

#: The first pause, in seconds, for the recall of a study that is not on disk.
_RECALL_PAUSE = 600.0

_UNABLE_TO_COUNT_MATCHES = 0xA701

#: Verdicts whose comment is the reason of what is missing.
_FAILURES = (Verdict.RETRY, Verdict.LOST, Verdict.CONFIGURATION, Verdict.UNSUPPORTED)

#: Fruitless tries if our own receiver has a lasting reason to refuse: the first one, and one to confirm it.
_MAX_REFUSED_TRIES = 2


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
    why: str


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
    if snapshot.names_other_study and snapshot.missing:
        # The archive would send the same again.
        return Finish("other_study_uid", {"stored": len(snapshot.stored), "missing": len(snapshot.missing)})
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
    earlier, failures = snapshot.earlier_failures, snapshot.fruitless_tries
    is_nearline = snapshot.is_nearline
    if last and last.refusal and not last.newly_stored:
        return _after_refusal(snapshot, last.refusal, failures, jitter)
    if snapshot.missing and not snapshot.sendable:
        return _give_up(snapshot)
    if failures >= MAX_FRUITLESS_ROUNDS and not is_nearline:
        return _give_up(snapshot)
    failed = last if last and not last.newly_stored else None
    narrows = not failed or may_concern_request(failed, is_proven=snapshot.transport in snapshot.proven)
    # A series may be protected, but hardly an instance.
    if failed and failed.verdict is Verdict.CONFIGURATION and not (narrows and failed.level is Level.STUDY):
        return _give_up(snapshot)
    requests = next_requests(snapshot) if narrows else ()
    # A later try has one round: while an archive fails it has few requests.
    is_last_round = not requests or bool(failed and earlier and not _too_large(failed))
    if failed and failed.verdict in (Verdict.RETRY, Verdict.LOST) and is_last_round:
        is_proven = bool(snapshot.stored) or snapshot.transport in snapshot.proven
        return Postpone(backoff(failures, jitter), _reason_to_wait(failed, is_proven=is_proven))
    if last and not snapshot.stored and is_nearline:
        return _wait_for_recall(snapshot, failures, jitter)
    if requests:
        # Some archives abort a C-GET where they miss a presentation context: the third try offers more.
        is_repeat = snapshot.earlier_failures > 1 or any(
            may_concern_request(one, is_proven=True) for one in snapshot.rounds
        )
        return Retrieve(with_sop_classes(requests, snapshot.listing, is_repeat=is_repeat))
    return Relist() if snapshot.listing_count < 2 else _give_up(snapshot)


def _reason_to_wait(failed: Round, *, is_proven: bool) -> str:
    """Return the reason of a pause. Only an archive that reports a lack of resources is called busy."""
    if failed.verdict is Verdict.LOST:
        return "the connection to the archive was lost"
    if failed.status in BUSY_STATUSES or failed.retry_after is not None:
        return "the archive is busy"
    status = "" if failed.status is None else f" ({failed.status:04X})"
    if is_proven:
        return f"the archive could not send what is missing{status}"
    if failed.status in CANNOT_SEND_STATUSES:
        return f"the archive could not send to this computer{status}"
    return f"the archive could not send{status}: it may not know this computer as a destination"


def _after_refusal(snapshot: TaskSnapshot, refusal: Refusal, failures: int, jitter: float) -> Step:
    """Return the next step after our own receiver refused all that the archive sent in a round."""
    if failures >= (_MAX_REFUSED_TRIES if refusal.is_lasting else MAX_FRUITLESS_ROUNDS):
        return _give_up(snapshot)
    return Postpone(backoff(failures, jitter), f"Quarry's receiver refused the images: {refusal.reason}")


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


def _give_up(snapshot: TaskSnapshot) -> Finish:
    last = snapshot.rounds[-1] if snapshot.rounds else None
    refusal = next((one.refusal for one in reversed(snapshot.rounds) if one.refusal), None)
    if snapshot.stored:
        return _finish_incomplete(snapshot, refusal)
    if refusal is not None:
        return Finish("images_refused", {"why": refusal.reason})
    status = "; ".join(filter(None, (_describe_refused_classes(snapshot), _status_text(last))))
    if last and last.verdict is Verdict.LOST:
        return Finish("gave_up_waiting", {"why": status, "attempts": snapshot.fruitless_tries})
    if last and last.verdict in (Verdict.CONFIGURATION, Verdict.RETRY, Verdict.UNSUPPORTED):
        return Finish("archive_refused", {"status": status})
    expected = len(snapshot.listing.instances) if snapshot.listing.lists_instances else snapshot.claimed_count
    return Finish("nothing_arrived", {"expected": expected, "status": status})


def _finish_incomplete(snapshot: TaskSnapshot, refusal: Refusal | None) -> Finish:
    if snapshot.listing.lists_instances:
        expected, missing = len(snapshot.listing.instances), len(snapshot.missing)
    else:
        expected, missing = snapshot.claimed_count, snapshot.claimed_count - len(snapshot.stored)
    if missing > 0 and refusal is not None:
        return Finish(
            "some_images_refused", {"missing": missing, "expected": expected, "why": refusal.reason}
        )
    if missing > 0:
        details = {"missing": missing, "expected": expected, "why": _describe_failures(snapshot)}
        return Finish("instances_missing", {name: value for name, value in details.items() if value != ""})
    return Finish("archive_cannot_list", {"stored": len(snapshot.stored)})


def _describe_failures(snapshot: TaskSnapshot) -> str:
    """Describe why the archive did not send what is missing; empty if it reported no failure."""
    failed = [one for one in snapshot.rounds if not one.newly_stored and one.verdict in _FAILURES]
    answer = _status_text(failed[-1]) if failed and (snapshot.sendable or not snapshot.missing) else ""
    return "; ".join(filter(None, (_describe_refused_classes(snapshot), answer)))


def _describe_refused_classes(snapshot: TaskSnapshot) -> str:
    refused = snapshot.refused_classes.intersection(ref.sop_class for ref in snapshot.missing)
    return f"the archive does not send {describe_sop_classes(refused)} by C-GET" if refused else ""


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
