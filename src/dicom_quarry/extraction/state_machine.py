"""The events in the life of a request and of a task, and the table of the states that they lead to. Pure.

``make docs`` draws the tables in docs/architecture.md. The states between waiting and concluded last as long
as the process: after a crash every task in work is waiting again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dicom_quarry.model import RequestState, TaskState


class IllegalTransition(RuntimeError):
    """An event that is not possible in this state: a defect of Quarry."""


class RequestEvent(StrEnum):
    """An event in the life of a request."""

    STUDIES_FOUND = "studies_found"
    NO_STUDY_TO_FETCH = "no_study_to_fetch"
    RETRIED = "retried"


class TaskEvent(StrEnum):
    """An event in the life of a task."""

    STARTED = "started"
    LIST_RECEIVED = "list_received"
    RELIST_REQUESTED = "relist_requested"
    RETRIEVAL_REQUESTED = "retrieval_requested"
    RETRIEVAL_COMPLETED = "retrieval_completed"
    LATE_STORES_SETTLED = "late_stores_settled"
    POSTPONED = "postponed"
    OUTCOME_DECIDED = "outcome_decided"
    OUTCOME_COMMITTED = "outcome_committed"
    SYNC_FAILED = "sync_failed"  # the disk did not take the files, which are discarded
    INTERRUPTED = "interrupted"  # the process ended, or the job stopped
    RETRIED = "retried"  # by a user, or because an instance arrived late
    NO_LONGER_REQUESTED = "no_longer_requested"  # --update: no row of the new table means this study
    REQUESTED_AGAIN = "requested_again"
    PRUNED = "pruned"  # quarry prune: its files were moved away, as no row requests it any more


REQUEST_TRANSITIONS: Mapping[tuple[RequestState, RequestEvent], RequestState] = {
    (RequestState.WAITING, RequestEvent.STUDIES_FOUND): RequestState.RESOLVED,
    (RequestState.WAITING, RequestEvent.NO_STUDY_TO_FETCH): RequestState.CONCLUDED,
    (RequestState.CONCLUDED, RequestEvent.RETRIED): RequestState.WAITING,
    (RequestState.RESOLVED, RequestEvent.RETRIED): RequestState.RESOLVED,
}

_ACTIVE_STATES = (
    TaskState.LISTING,
    TaskState.DECIDING,
    TaskState.RETRIEVING,
    TaskState.SETTLING,
    TaskState.COMMITTING,
)

TASK_TRANSITIONS: Mapping[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.WAITING, TaskEvent.STARTED): TaskState.LISTING,
    (TaskState.WAITING, TaskEvent.NO_LONGER_REQUESTED): TaskState.UNWANTED,
    (TaskState.UNWANTED, TaskEvent.REQUESTED_AGAIN): TaskState.WAITING,
    (TaskState.LISTING, TaskEvent.LIST_RECEIVED): TaskState.DECIDING,
    # The archive failed to list the study, or the study is on the exclusion list.
    (TaskState.LISTING, TaskEvent.OUTCOME_DECIDED): TaskState.COMMITTING,
    (TaskState.DECIDING, TaskEvent.RETRIEVAL_REQUESTED): TaskState.RETRIEVING,
    (TaskState.DECIDING, TaskEvent.RELIST_REQUESTED): TaskState.LISTING,
    (TaskState.DECIDING, TaskEvent.POSTPONED): TaskState.WAITING,
    (TaskState.DECIDING, TaskEvent.OUTCOME_DECIDED): TaskState.COMMITTING,
    (TaskState.RETRIEVING, TaskEvent.RETRIEVAL_COMPLETED): TaskState.SETTLING,
    (TaskState.SETTLING, TaskEvent.LATE_STORES_SETTLED): TaskState.DECIDING,
    (TaskState.COMMITTING, TaskEvent.OUTCOME_COMMITTED): TaskState.CONCLUDED,
    (TaskState.COMMITTING, TaskEvent.SYNC_FAILED): TaskState.DECIDING,
    (TaskState.CONCLUDED, TaskEvent.RETRIED): TaskState.WAITING,
    (TaskState.CONCLUDED, TaskEvent.PRUNED): TaskState.UNWANTED,
    **{(state, TaskEvent.INTERRUPTED): TaskState.WAITING for state in _ACTIVE_STATES},
}


def advance_task(state: TaskState, event: TaskEvent) -> TaskState:
    """Return the state after the event; raises IllegalTransition where there is none."""
    try:
        return TASK_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"the event {event} is not possible while a task is {state}") from None
