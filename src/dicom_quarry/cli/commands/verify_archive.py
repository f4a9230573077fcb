"""``quarry verify --against-archive``: the record compared with what the archive lists now."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import fail, out
from dicom_quarry.cli.display.run_job import attended
from dicom_quarry.reporting.formatting import counted
from dicom_quarry.verification.archive_diff import GONE, NEW, NOT_COMPARED, STUDY_GONE, Again

#: What the archive lists otherwise, in words.
_CHANGES = {
    NEW: "with new instances, {instances}",
    GONE: "of which instances are gone, {instances}",
    STUDY_GONE: "gone from the archive",
    NOT_COMPARED: "could not be compared",
}


def against(folder: Path, *, restart: bool) -> NoReturn:
    """Have every complete study listed again, and say what has changed."""
    compare = partial(api.compared, folder, restart=restart)
    again = attended(api.settings_of(folder), compare)
    if again.finished:
        _tell_changes(folder, again)
        raise typer.Exit(1 if again.others else 0)
    out.print(f"{again.studies:,} of {again.all:,} complete studies listed again: run again to go on")
    if again.problem:
        fail(again.problem)
    raise typer.Exit(4)


def _tell_changes(folder: Path, again: Again) -> None:
    same = again.studies - again.others
    out.print(f"{again.studies:,} complete studies listed again, {same:,} of them as they were")
    for code, words in _CHANGES.items():
        if again.changed.get(code):
            number = counted(again.changed[code], "study", "studies")
            out.print(f"  {number} {words.format(instances=counted(again.instances[code], 'instance'))}")
    if again.others:
        out.print(f"{folder / 'changes.csv'} lists them; nothing was moved", markup=False)
    if again.changed.get(NEW):
        out.print(f"what to do: quarry retry {folder} --changed  has the new instances sent", markup=False)
