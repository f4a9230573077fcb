"""The states of a request and of a task, and THE table of what leads from one to the next. Pure.

The ledger keeps ``waiting``, ``resolved`` and ``concluded``; the states in between live as long as the
process, and a crash takes a task back to ``waiting``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from dicom_quarry.errors import QuarryError


class IllegalTransition(QuarryError):
    """An event that cannot happen in this state: a defect of Quarry."""


class RequestState(StrEnum):
    """Where a row of the user's table stands."""

    WAITING = "waiting"
    RESOLVED = "resolved"  # its tasks decide
    CONCLUDED = "concluded"


class RequestEvent(StrEnum):
    """What happens to a request."""

    STUDIES_FOUND = "studies found"
    ENDED = "ended without a study"
    RETRIED = "retried"


class TaskState(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    LISTING = "listing"
    DECIDING = "deciding"
    RETRIEVING = "retrieving"
    SETTLING = "settling"
    VERIFYING = "verifying"
    CONCLUDED = "concluded"


class TaskEvent(StrEnum):
    """What happens to a task."""

    STARTED = "taken"
    LISTED = "listed"
    RETRIEVE_REQUESTED = "asked"
    LIST_DOUBTED = "list doubted"
    RETRIEVE_ENDED = "answered"
    SETTLED = "settled"
    POSTPONED = "postponed"
    FINISHED = "closed"
    COMMITTED = "proved"
    CRASHED = "crashed"
    RETRIED = "retried"


REQUEST_TRANSITIONS: Mapping[tuple[RequestState, RequestEvent], RequestState] = {
    (RequestState.WAITING, RequestEvent.STUDIES_FOUND): RequestState.RESOLVED,
    (RequestState.WAITING, RequestEvent.ENDED): RequestState.CONCLUDED,
    (RequestState.CONCLUDED, RequestEvent.RETRIED): RequestState.WAITING,
    (RequestState.RESOLVED, RequestEvent.RETRIED): RequestState.RESOLVED,
}

_ACTIVE_STATES = (
    TaskState.LISTING,
    TaskState.DECIDING,
    TaskState.RETRIEVING,
    TaskState.SETTLING,
    TaskState.VERIFYING,
)

TASK_TRANSITIONS: Mapping[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.WAITING, TaskEvent.STARTED): TaskState.LISTING,
    (TaskState.LISTING, TaskEvent.LISTED): TaskState.DECIDING,
    # The archive would not list it.
    (TaskState.LISTING, TaskEvent.FINISHED): TaskState.VERIFYING,
    (TaskState.DECIDING, TaskEvent.RETRIEVE_REQUESTED): TaskState.RETRIEVING,
    (TaskState.DECIDING, TaskEvent.LIST_DOUBTED): TaskState.LISTING,
    (TaskState.DECIDING, TaskEvent.POSTPONED): TaskState.WAITING,
    (TaskState.DECIDING, TaskEvent.FINISHED): TaskState.VERIFYING,
    (TaskState.RETRIEVING, TaskEvent.RETRIEVE_ENDED): TaskState.SETTLING,
    (TaskState.SETTLING, TaskEvent.SETTLED): TaskState.DECIDING,
    (TaskState.VERIFYING, TaskEvent.COMMITTED): TaskState.CONCLUDED,
    (TaskState.CONCLUDED, TaskEvent.RETRIED): TaskState.WAITING,
    **{(state, TaskEvent.CRASHED): TaskState.WAITING for state in _ACTIVE_STATES},
    # A job that stops between two steps gives its tasks back.
    **{(state, TaskEvent.POSTPONED): TaskState.WAITING for state in _ACTIVE_STATES},
}


def advance_request(state: RequestState, event: RequestEvent) -> RequestState:
    """The state after the event; raises IllegalTransition where there is none."""
    try:
        return REQUEST_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a request that is {state} cannot be {event}") from None


def advance_task(state: TaskState, event: TaskEvent) -> TaskState:
    """The state after the event; raises IllegalTransition where there is none."""
    try:
        return TASK_TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a task that is {state} cannot be {event}") from None
