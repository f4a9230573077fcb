"""Make docs/notebook.ipynb anew: run it in a kernel against the demo archive, and keep its outputs.

``python -m tools.notebook``. Nothing of this computer stays in it: the notebook runs in a folder of its own.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

from dicom_quarry.api import run_demo

PAGE = Path(__file__).parents[1] / "docs" / "notebook.ipynb"

#: The addresses on the page are those of ``quarry demo --serve``.
ARCHIVE, RECEIVER = "DEMO@127.0.0.1:11104", "QUARRY@127.0.0.1:11112"

_SECONDS = 120


def run_notebook(page: Path) -> Any:
    """Return the notebook with the outputs of this run."""
    notebook: Any = nbformat.read(page, as_version=4)  # type: ignore[no-untyped-call]
    sources = [cell.source for cell in notebook.cells]
    with TemporaryDirectory() as folder, run_demo(Path(folder) / "demo") as demo:
        for cell in notebook.cells:
            cell.source = cell.source.replace(ARCHIVE, demo.archive).replace(RECEIVER, demo.local)
        client = NotebookClient(
            notebook, timeout=_SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute(env={**os.environ, "XDG_STATE_HOME": f"{folder}/state", "COLUMNS": "100"})
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
        cell.metadata = {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def outline(notebook: Any) -> list[Any]:
    """Return what has to be the same in each run: the cells, and their outputs without numbers."""
    return [
        (cell.cell_type, cell.source, [*map(_outline_output, cell.get("outputs", []))])
        for cell in notebook.cells
    ]


def _outline_output(output: Any) -> Any:
    data = output.get("data") or {"text": output.get("text", output.output_type)}
    return output.output_type, {kind: _without_numbers(text) for kind, text in sorted(data.items())}


def _without_numbers(text: str) -> str:
    """Leave out styles, sizes, times and other numbers, such as the free disk space."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"[\d.,]+ (?:B|kB|MB|GB|TB)\b", "SIZE", text)
    return re.sub(r"\d[\d.,]*", "N", text)


def main() -> int:
    """Write the page."""
    notebook = run_notebook(PAGE)
    nbformat.validate(notebook)
    nbformat.write(notebook, PAGE)  # type: ignore[no-untyped-call]
    return 0


if __name__ == "__main__":
    sys.exit(main())
