"""Every pair of state and event: what is in the table advances, all else raises and changes nothing.

The ledger, which stores some of the states, and the diagrams of docs/architecture.md agree with the tables.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry.errors import LedgerError
from dicom_quarry.extraction.state_machine import (
    REQUEST_TRANSITIONS,
    TASK_TRANSITIONS,
    IllegalTransition,
    RequestEvent,
    TaskEvent,
    advance_task,
)
from dicom_quarry.ledger.cohort_rows import replace_rows
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.orphans import Orphans
from dicom_quarry.model import RequestState, TaskState
from tests.faults.document import ARCHITECTURE
from tests.ledger.helpers import begin, end, request, resolve, study

STORED = {TaskState.WAITING, TaskState.CONCLUDED, TaskState.UNWANTED}
WORKING = set(TaskState) - STORED
ROW, OTHER_ROW = request(1, "A1"), request(1, "A2")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        begin(ledger, [ROW])
        yield ledger


@pytest.mark.parametrize(("state", "event"), [*itertools.product(TaskState, TaskEvent)])
def test_tasks(state: TaskState, event: TaskEvent) -> None:
    before = dict(TASK_TRANSITIONS)
    if (state, event) in TASK_TRANSITIONS:
        assert advance_task(state, event) is TASK_TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event} is not possible while a task is {state}"):
            advance_task(state, event)
    assert before == TASK_TRANSITIONS


@pytest.mark.parametrize("start", TaskState)
def test_from_every_state_a_task_can_be_concluded(start: TaskState) -> None:
    reached, edge = {start}, {start}
    while edge:
        edge = {after for (before, _), after in TASK_TRANSITIONS.items() if before in edge} - reached
        reached |= edge
    assert TaskState.CONCLUDED in reached


def test_nothing_is_concluded_without_commit_and_an_interruption_takes_all_work_back() -> None:
    assert {before for (before, _), after in TASK_TRANSITIONS.items() if after is TaskState.CONCLUDED} == {
        TaskState.COMMITTING
    }
    assert {before for (before, event) in TASK_TRANSITIONS if event is TaskEvent.INTERRUPTED} == WORKING
    assert all(TASK_TRANSITIONS[state, TaskEvent.INTERRUPTED] is TaskState.WAITING for state in WORKING)


def test_a_request_that_is_resolved_is_never_concluded_on_its_own() -> None:
    assert (RequestState.RESOLVED, RequestEvent.NO_STUDY_TO_FETCH) not in REQUEST_TRANSITIONS
    reached = {
        REQUEST_TRANSITIONS[RequestState.WAITING, event]
        for event in RequestEvent
        if (RequestState.WAITING, event) in REQUEST_TRANSITIONS
    }
    assert reached == {RequestState.RESOLVED, RequestState.CONCLUDED}


REQUEST_DEEDS: dict[RequestEvent, Callable[[Ledger], object]] = {
    RequestEvent.STUDIES_FOUND: lambda ledger: resolve(ledger, ROW, study(1)),
    RequestEvent.NO_STUDY_TO_FETCH: lambda ledger: ledger.conclude_request(
        ROW, "study_not_found", keys="accession"
    ).result(),
    RequestEvent.RETRIED: lambda ledger: ledger.retry(["study_not_found", "nothing_arrived"]),
}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(RequestState, RequestEvent)])
def test_the_ledger_moves_requests_as_the_table_does(
    ledger: Ledger, state: RequestState, event: RequestEvent
) -> None:
    for (_, way), reached in REQUEST_TRANSITIONS.items():
        if reached is state is not RequestState.WAITING and way is not RequestEvent.RETRIED:
            REQUEST_DEEDS[way](ledger)
    assert stored(ledger, "requests") == [state]
    expected = REQUEST_TRANSITIONS.get((state, event), state)
    attempt(ledger, REQUEST_DEEDS[event])
    assert stored(ledger, "requests") == [expected]


def conclude(ledger: Ledger) -> None:
    result = end("nothing_arrived", {"expected": 1, "status": "0xA702"})
    ledger.conclude_task(1, result).result()


def resolve_other_row(ledger: Ledger) -> None:
    ledger.database.write(lambda c: replace_rows(c, [OTHER_ROW]))
    resolve(ledger, OTHER_ROW, study(1))


TASK_DEEDS: dict[TaskEvent, Callable[[Ledger], object]] = {
    TaskEvent.POSTPONED: lambda ledger: ledger.postpone_task(1, 1.0),
    TaskEvent.OUTCOME_COMMITTED: conclude,
    TaskEvent.RETRIED: lambda ledger: ledger.retry(["nothing_arrived"]),
    TaskEvent.NO_LONGER_REQUESTED: lambda ledger: ledger.database.write(
        lambda c: replace_rows(c, [OTHER_ROW]) and None
    ),
    TaskEvent.REQUESTED_AGAIN: resolve_other_row,
    TaskEvent.PRUNED: lambda ledger: Orphans(ledger.database).forget([1]),
}
WAY_TO = {
    TaskState.WAITING: (),
    TaskState.CONCLUDED: (TaskEvent.OUTCOME_COMMITTED,),
    TaskState.UNWANTED: (TaskEvent.NO_LONGER_REQUESTED,),
}


def test_every_event_that_changes_what_is_stored_is_a_deed_of_the_ledger() -> None:
    changing = {
        event for (before, event), after in TASK_TRANSITIONS.items() if in_ledger(before) != in_ledger(after)
    }
    assert changing | {TaskEvent.POSTPONED} == set(TASK_DEEDS)
    assert set(WAY_TO) == STORED


@pytest.mark.parametrize(("state", "event"), [*itertools.product(WAY_TO, TASK_DEEDS)])
def test_the_ledger_moves_tasks_as_the_table_does(ledger: Ledger, state: TaskState, event: TaskEvent) -> None:
    resolve(ledger, ROW, study(1))
    for way in WAY_TO[state]:
        TASK_DEEDS[way](ledger)
    assert stored(ledger, "tasks") == [state]
    reached = {
        in_ledger(after)
        for (before, one), after in TASK_TRANSITIONS.items()
        if one is event and in_ledger(before) is state
    }
    attempt(ledger, TASK_DEEDS[event])
    assert stored(ledger, "tasks") == [*(reached or {state})]


def in_ledger(state: TaskState) -> TaskState:
    return state if state in STORED else TaskState.WAITING


def attempt(ledger: Ledger, deed: Callable[[Ledger], object]) -> None:
    """What is not in the table is refused, or changes nothing."""
    try:
        deed(ledger)
    except LedgerError:
        pass


def stored(ledger: Ledger, table: str) -> list[str]:
    return ledger.database.read(lambda c: [*c.exec_driver_sql(f"select state from {table}").scalars()])


@pytest.mark.parametrize(("name", "table"), [("request", REQUEST_TRANSITIONS), ("task", TASK_TRANSITIONS)])
def test_the_diagrams_show_the_tables(name: str, table: dict[tuple[str, str], str]) -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- states of a {name} -->\n```mermaid\n(.*?)```\n", page, re.DOTALL)
    assert found
    arrows = re.findall(r"(\w+) --> (\w+): (\w+)", found[1])
    drawn = {
        (before, event): after
        for start, after, event in arrows
        for before in (WORKING if start == "working" else [start])
    }
    assert drawn == table
