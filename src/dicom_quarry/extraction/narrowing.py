"""The requests for what is missing of a task, each narrower than the one before that brought nothing. Pure.

One series or instance that an archive cannot send fails for the whole request. So the study is requested
first, then its series without an instance, then its instances in smaller and smaller batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dicom_quarry.archive.base import RetrieveRequest, Verdict, group_sop_classes
from dicom_quarry.extraction.task_snapshot import TaskSnapshot
from dicom_quarry.model import Level, Listing

#: UIDs in one IMAGE level request: long lists exceed the identifier limits of some archives. Smaller lists
#: follow where a request fails: one instance that the archive cannot send fails for the whole list.
IMAGE_BATCH_SIZE = 100
_BATCH_SIZES = (IMAGE_BATCH_SIZE, 10, 1)

#: Requests of a round after a round that brought nothing. Fewer, if no instance has come by the transport
#: yet: then the archive may not know this receiver, and narrower requests fail like the first.
_MAX_REQUESTS_AFTER_FAILURE = 20
_MAX_REQUESTS_UNPROVEN = 3

#: SOP classes of a series whose instances are not listed.
_UNKNOWN_SOP_CLASSES = frozenset({""})

#: Rounds at IMAGE level without a new instance, at least, before the archive lists the study again.
_MIN_IMAGE_ROUNDS = 2


def next_requests(snapshot: TaskSnapshot) -> tuple[RetrieveRequest, ...]:
    """Return the next narrower requests; none if those that remain were all made.

    After a failure they are few, and each time others come first: one that ends its round does not keep the
    others from their turn.
    """
    fruitless = snapshot.fruitless_rounds
    has_failed = bool(fruitless) and fruitless[-1].verdict in (Verdict.RETRY, Verdict.CONFIGURATION)
    steps = _narrowing_steps(snapshot)
    if not steps:
        return ()
    levels = {step[0].level for step in steps}
    # Instances that arrived late leave rounds behind whose level is no longer needed.
    narrowed = sum(one.level in levels for one in fruitless)
    position = _first_step(snapshot, len(steps)) + narrowed
    if position >= len(steps):
        by_image = sum(one.level is Level.IMAGE for one in fruitless)
        if has_failed or steps[-1][0].level is not Level.IMAGE or by_image >= _MIN_IMAGE_ROUNDS:
            return ()
    requests = steps[min(position, len(steps) - 1)]
    turn = narrowed + snapshot.earlier_failures
    if not turn or (fruitless and not has_failed):
        return requests
    is_proven = snapshot.stored or snapshot.transport in snapshot.proven
    limit = _MAX_REQUESTS_AFTER_FAILURE if is_proven else _MAX_REQUESTS_UNPROVEN
    # Those that the last turn left out come first; if it left out none, another one does.
    start = turn * (limit if len(requests) > limit else 1) % len(requests)
    return (requests[start:] + requests[:start])[:limit]


def _first_step(snapshot: TaskSnapshot, count: int) -> int:
    """Return the step at which a try begins: that of the first two is the widest."""
    if snapshot.is_nearline:
        return 0
    return min(max(0, snapshot.earlier_failures - 1), count - 1)


def _narrowing_steps(snapshot: TaskSnapshot) -> list[tuple[RetrieveRequest, ...]]:
    """Return the requests for all that is missing, each step narrower than the one before.

    The study; its series without an instance; its instances in smaller and smaller batches.
    """
    study = snapshot.task.study
    fruitful = snapshot.rounds[: len(snapshot.rounds) - len(snapshot.fruitless_rounds)]
    narrower = snapshot.stored and (snapshot.listing.lists_instances or snapshot.listing.series_uids)
    steps: list[tuple[RetrieveRequest, ...]] = []
    if not fruitful and not narrower and not snapshot.task.selection.series:
        steps.append((RetrieveRequest(study.study_uid, study.patient_id, transport=snapshot.transport),))
    requested = frozenset[str]().union(*(one.series_uids for one in fruitful))
    steps.append(
        tuple(
            RetrieveRequest(study.study_uid, study.patient_id, (uid,), transport=snapshot.transport)
            for uid in _series_to_retrieve(snapshot)
            if uid not in requested
        )
    )
    steps += [_image_requests(snapshot, size) for size in _batch_sizes(len(snapshot.sendable))]
    return [step for step in dict.fromkeys(steps) if step]


def _batch_sizes(missing: int) -> tuple[int, ...]:
    """Return the sizes of batches for so many instances.

    A few are requested one by one at once: where each failure ends the association, tries are too few for
    more steps.
    """
    return _BATCH_SIZES if missing > _MAX_REQUESTS_AFTER_FAILURE else (_BATCH_SIZES[0], _BATCH_SIZES[-1])


def _series_to_retrieve(snapshot: TaskSnapshot) -> list[str]:
    """Return the series without a stored instance; every series if instances cannot be listed.

    A series with an instance that the archive does not send is left out: it is retrieved by instance.
    """
    if not snapshot.listing.lists_instances:
        return list(snapshot.listing.series_uids)
    missing = Counter(ref.series_uid for ref in snapshot.sendable)
    listed = Counter(ref.series_uid for ref in snapshot.listing.instances)
    return [uid for uid, count in missing.items() if count == listed[uid]]


def _image_requests(snapshot: TaskSnapshot, batch_size: int) -> tuple[RetrieveRequest, ...]:
    by_series: dict[str, list[str]] = {}
    for ref in snapshot.sendable:
        by_series.setdefault(ref.series_uid, []).append(ref.sop_uid)
    study = snapshot.task.study
    return tuple(
        RetrieveRequest(
            study.study_uid,
            study.patient_id,
            (series_uid,),
            tuple(uids[start : start + batch_size]),
            snapshot.transport,
        )
        for series_uid, uids in by_series.items()
        for start in range(0, len(uids), batch_size)
    )


def with_sop_classes(
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
