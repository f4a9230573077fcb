"""Every pair of state and event: what is in the table advances, all else raises and changes nothing."""

from __future__ import annotations

import itertools

import pytest

from dicom_quarry.extraction.state_machine import (
    REQUEST_TRANSITIONS,
    TASK_TRANSITIONS,
    IllegalTransition,
    RequestEvent,
    RequestState,
    TaskEvent,
    TaskState,
    advance_request,
    advance_task,
)
from dicom_quarry.ledger.schema import CONCLUDED, RESOLVED, WAITING


@pytest.mark.parametrize(("state", "event"), [*itertools.product(RequestState, RequestEvent)])
def test_requests(state: RequestState, event: RequestEvent) -> None:
    before = dict(REQUEST_TRANSITIONS)
    if (state, event) in REQUEST_TRANSITIONS:
        assert advance_request(state, event) is REQUEST_TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{state} cannot be {event}"):
            advance_request(state, event)
    assert before == REQUEST_TRANSITIONS


@pytest.mark.parametrize(("state", "event"), [*itertools.product(TaskState, TaskEvent)])
def test_tasks(state: TaskState, event: TaskEvent) -> None:
    before = dict(TASK_TRANSITIONS)
    if (state, event) in TASK_TRANSITIONS:
        assert advance_task(state, event) is TASK_TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{state} cannot be {event}"):
            advance_task(state, event)
    assert before == TASK_TRANSITIONS


@pytest.mark.parametrize("start", TaskState)
def test_from_every_state_a_task_can_be_concluded(start: TaskState) -> None:
    reached, edge = {start}, {start}
    while edge:
        edge = {after for (before, _), after in TASK_TRANSITIONS.items() if before in edge} - reached
        reached |= edge
    assert TaskState.CONCLUDED in reached


def test_nothing_is_concluded_without_proof_and_a_crash_takes_all_work_back() -> None:
    assert {before for (before, _), after in TASK_TRANSITIONS.items() if after is TaskState.CONCLUDED} == {
        TaskState.VERIFYING
    }
    working = set(TaskState) - {TaskState.WAITING, TaskState.CONCLUDED}
    assert {before for (before, event) in TASK_TRANSITIONS if event is TaskEvent.CRASHED} == working
    assert all(TASK_TRANSITIONS[state, TaskEvent.CRASHED] is TaskState.WAITING for state in working)


def test_a_request_that_is_resolved_is_never_ended_on_its_own() -> None:
    assert (RequestState.RESOLVED, RequestEvent.ENDED) not in REQUEST_TRANSITIONS
    reached = {
        REQUEST_TRANSITIONS[RequestState.WAITING, event]
        for event in RequestEvent
        if (RequestState.WAITING, event) in REQUEST_TRANSITIONS
    }
    assert reached == {RequestState.RESOLVED, RequestState.CONCLUDED}


def test_the_ledger_knows_the_same_words() -> None:
    assert {WAITING, RESOLVED, CONCLUDED} == {str(state) for state in RequestState}
    assert {WAITING, CONCLUDED} <= {str(state) for state in TaskState}
