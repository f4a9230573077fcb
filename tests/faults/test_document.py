"""The pages that are made from the tests and from the code are those that would be made now."""

from __future__ import annotations

import re

import pytest

from dicom_quarry.extraction.state_machine import TASK_TRANSITIONS, TaskEvent
from dicom_quarry.model import TaskState
from tests.faults import document
from tests.faults.matrix import SCENARIOS


def test_faults_is_up_to_date() -> None:
    text = document.FAULTS.read_text(encoding="utf-8")
    assert text == document.faults(), "docs/faults.md is out of date: make docs"


def test_architecture_is_up_to_date() -> None:
    page = document.ARCHITECTURE.read_text(encoding="utf-8")
    assert page == document.architecture(page), "docs/architecture.md is out of date: make docs"


def test_every_item_is_shown() -> None:
    assert {one.item for one in document.shown()} >= {*range(1, 19), *range(23, 29)}


def test_no_two_scenarios_have_one_name() -> None:
    names = [one.test for one in document.shown()]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w-]+", one.name) for one in SCENARIOS)


@pytest.mark.parametrize(
    "gone", [(TaskState.DECIDING, TaskEvent.RETRIEVAL_REQUESTED), (TaskState.SETTLING, TaskEvent.INTERRUPTED)]
)
def test_the_diagram_is_of_the_table(gone: tuple[TaskState, TaskEvent]) -> None:
    less = {key: end for key, end in TASK_TRANSITIONS.items() if key != gone}
    assert document.diagram(TASK_TRANSITIONS, TaskState) != document.diagram(less, TaskState)
