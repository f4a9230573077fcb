"""docs/faults.md from the scenarios, and the diagrams of docs/architecture.md from the transition table.

python -m tests.faults.document
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from dicom_quarry.extraction.state_machine import (
    REQUEST_TRANSITIONS,
    TASK_TRANSITIONS,
    TaskEvent,
)
from dicom_quarry.model import RequestState, TaskState
from tests.faults import (  # noqa: F401 (they register what they show)
    test_archives,
    test_crash,
    test_exclusions,
    test_get,
    test_jobs,
    test_large,
    test_power,
    test_refused_instances,
    test_web,
)
from tests.faults.dicomweb_faults import SCENARIOS as WEB
from tests.faults.documented_tests import SHOWN, Shown
from tests.faults.matrix import SCENARIOS
from tests.faults.table_faults import SCENARIOS as TABLES
from tools import package_drawing

#: States in which a job leaves a row or a task when it ends.
_FINAL = (TaskState.CONCLUDED, TaskState.UNWANTED)

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)

DOCS = Path(__file__).parents[2] / "docs"
FAULTS, ARCHITECTURE = DOCS / "faults.md", DOCS / "architecture.md"

_TITLES = {
    0: "Quarry's own machine",
    1: "Transient and permanent rejects",
    2: "Lost in the middle of a C-MOVE",
    3: "Silence",
    4: "No end",
    5: "Nearline and offline",
    6: "C-CANCEL ignored",
    7: "Final statuses of C-MOVE",
    8: "False success",
    9: "Stores after the final response",
    10: "Stores on several associations, and unrequested ones",
    11: "Duplicates",
    12: "Keys that are ignored, answers without end, several archives",
    13: "Limits of answers",
    14: "Odd answers",
    15: "Identity",
    16: "Matching characters",
    17: "Character sets",
    18: "Dates",
    20: "C-GET",
    21: "Transfer syntaxes",
    23: "Large instances",
    24: "Odd instances",
    25: "Disk full",
    26: "Parallel moves",
    27: "Negotiation",
    28: "Addresses and ports",
    29: "DICOMweb",
    30: "Tables",
    31: "Exclusion lists",
    32: "Values from outside",
    33: "What other software passes over",
    36: "What our own receiver refuses",
}

_HEAD = """\
# What goes wrong with archives, and what Quarry does

Every line is a test against the whole product: it asserts the outcome and code of every row, the files on
disk, the requests that the archive saw, and that the job ended by itself. The archive is a real SCP on a
socket that misbehaves on purpose, or Orthanc, or DCMTK's dcmqrscp. The proof is in `tests/faults/`.

This page is made by `make docs`; do not edit it.
"""


def shown() -> list[Shown]:
    """Everything that is shown, in the order of the page."""
    scenarios = [
        Shown(one.item, one.fault, one.does, f"test_matrix.py::test_fault[{one.item}-{one.name}]")
        for one in SCENARIOS
    ]
    web = [Shown(29, one.fault, one.does, f"test_web.py::test_fault[{one.name}]") for one in WEB[1:]]
    tables = [Shown(30, one.fault, one.does, f"test_tables.py::test_fault[{one.name}]") for one in TABLES]
    return sorted([*scenarios, *web, *tables, *SHOWN], key=lambda one: one.item or 99)


def faults() -> str:
    """The page."""
    lines = [_HEAD]
    for item, group in groupby(shown(), key=lambda one: one.item):
        lines += [f"## {item}. {_TITLES[item]}" if item else f"## {_TITLES[item]}", ""]
        lines += ["| fault | what Quarry does | proof |", "|---|---|---|"]
        lines += [f"| {_cell(one.fault)} | {_cell(one.does)} | `{one.test}` |" for one in group]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def diagram(table: Mapping[tuple[S, E], S], states: Iterable[S]) -> str:
    """A transition table as a Mermaid diagram.

    What happens alike in every state in which a task is worked on is drawn once, from the group of them.
    """
    order = [str(state) for state in states]
    arrows = {(str(start), str(end), str(event)) for (start, event), end in table.items()}
    working = {str(start) for (start, event) in table if event == TaskEvent.INTERRUPTED}
    alike = {
        (end, event)
        for _, end, event in arrows
        if working and {s for s, e, v in arrows if (e, v) == (end, event)} == working
    }
    single = [one for one in arrows if (one[1], one[2]) not in alike]
    single.sort(key=lambda one: (order.index(one[0]), order.index(one[1]), one[2]))
    inner = [one for one in single if one[0] in working and one[1] in working]
    lines = ["stateDiagram-v2", f"    [*] --> {order[0]}"]
    if working:
        lines.append("    state working {")
        lines += [f"        {start} --> {end}: {event}" for start, end, event in inner]
        lines.append("    }")
    lines += [f"    working --> {end}: {event}" for end, event in sorted(alike)]
    lines += [
        f"    {start} --> {end}: {event}" for start, end, event in single if (start, end, event) not in inner
    ]
    lines += [f"    {state} --> [*]" for state in order if state in _FINAL]
    return "\n".join(lines)


def architecture(page: str) -> str:
    """Return the page with new diagrams between its marks."""
    for name, text in (
        ("request", diagram(REQUEST_TRANSITIONS, RequestState)),
        ("task", diagram(TASK_TRANSITIONS, TaskState)),
    ):
        block = f"<!-- states of a {name} -->\n```mermaid\n{text}\n```\n"
        page, found = re.subn(
            rf"<!-- states of a {name} -->\n```mermaid\n.*?```\n", block, page, flags=re.DOTALL
        )
        assert found == 1, f"docs/architecture.md has no place for the states of a {name}"
    block = f"<!-- packages -->\n```mermaid\n{package_drawing.draw()}\n```\n"
    page, found = re.subn(r"<!-- packages -->\n```.*?```\n", lambda _: block, page, flags=re.DOTALL)
    assert found == 1, "docs/architecture.md has no place for the drawing of the packages"
    return page


def main() -> None:
    FAULTS.write_text(faults(), encoding="utf-8")
    ARCHITECTURE.write_text(architecture(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
