"""A job and a plan of a table with a mark in every cell, and a notebook that records its outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import dicom_quarry
from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import LoggingArchive, Office

#: In every cell of the user's table that no study is searched by.
MARK = "MARK<b>"
TABLE = [
    "Accession,Label,Empty,label",
    f"QA00003,007 {MARK},,{MARK}",
    f"QA00004,{MARK},,{MARK}",
    f"NONE{MARK},{MARK},,{MARK}",
]


@dataclass(frozen=True)
class Site:
    """A folder with a finished job, whose first file was changed, and the plan of the same table."""

    folder: Path
    result: dicom_quarry.Result
    plan: dicom_quarry.Plan


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch, LoggingArchive(demo_holding()) as archive:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        office = Office(folder, archive)
        plan = dicom_quarry.plan(_write(folder / "plan.csv"), config=office.settings)
        result = office.extract(TABLE)
        damaged = sorted((folder / "out").rglob("*.dcm"))[0]
        damaged.write_bytes(damaged.read_bytes() + b"\0")
        yield Site(folder, result, plan)


def _write(path: Path) -> Path:
    path.write_text("\n".join(TABLE) + "\n")
    return path


@dataclass
class Kernel:
    """The outputs of a notebook, each with all of its updates: ``display`` is IPython's."""

    outputs: dict[str | None, list[dict[str, str]]] = field(default_factory=dict)

    def display(
        self, data: dict[str, str], *, raw: bool, display_id: str | None = None, update: bool = False
    ) -> None:
        assert raw
        assert update == (display_id is not None and display_id in self.outputs)
        self.outputs.setdefault(display_id, []).append(data)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """This process is a notebook's kernel."""
    running, module, displays = Kernel(), ModuleType("IPython"), ModuleType("IPython.display")
    shell = SimpleNamespace(kernel=object())
    given: Any = (module, displays)
    given[0].get_ipython, given[1].display = lambda: shell, running.display
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", displays)
    return running
