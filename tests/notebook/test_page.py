"""docs/notebook.ipynb runs, and its outputs are those of today's code."""

from __future__ import annotations

import json

import nbformat
from tools.notebook import PAGE, outline, run_notebook


def test_the_page_is_what_a_run_gives() -> None:
    page = nbformat.read(PAGE, as_version=4)
    assert outline(run_notebook(PAGE)) == outline(page), "run make notebook"


def test_the_page_has_nothing_of_a_computer_or_of_a_patient() -> None:
    page = nbformat.read(PAGE, as_version=4)
    outputs = json.dumps([cell.get("outputs", []) for cell in page.cells])
    assert "/home/" not in outputs
    assert "/tmp/" not in outputs
    assert "00047" not in outputs, "a patient ID of the demo archive"
    assert outputs.count("<svg") > 1
    assert "Traceback" not in outputs
