"""``quarry verify --against-archive``: the record compared with what the archive lists now."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import fail, out
from dicom_quarry.cli.display.run_job import run_with_display
from dicom_quarry.reporting.formatting import format_count
from dicom_quarry.verification.archive_diff import GONE, NEW, NOT_COMPARED, STUDY_GONE, ArchiveDiff

#: What the archive lists otherwise, in words.
_CHANGE_DESCRIPTIONS = {
    NEW: "with new instances, {instances}",
    GONE: "of which instances are gone, {instances}",
    STUDY_GONE: "gone from the archive",
    NOT_COMPARED: "could not be compared",
}


def verify_against_archive(folder: Path, *, restart: bool) -> NoReturn:
    """Have every complete study listed again, and say what has changed."""
    list_again = partial(api.compare_with_archive, folder, restart=restart)
    diff = run_with_display(api.load_settings(folder), list_again)
    if diff.is_finished:
        _show_changes(folder, diff)
        raise typer.Exit(1 if diff.changed_studies else 0)
    out.print(f"{diff.studies:,} of {diff.total:,} complete studies listed again: run again to go on")
    if diff.problem:
        fail(diff.problem)
    raise typer.Exit(4)


def _show_changes(folder: Path, diff: ArchiveDiff) -> None:
    same = diff.studies - diff.changed_studies
    out.print(f"{diff.studies:,} complete studies listed again, {same:,} of them as they were")
    for code, description in _CHANGE_DESCRIPTIONS.items():
        if diff.studies_by_code.get(code):
            number = format_count(diff.studies_by_code[code], "study", "studies")
            out.print(
                f"  {number} {description.format(instances=format_count(diff.instances_by_code[code], 'instance'))}"
            )
    if diff.changed_studies:
        out.print(f"{folder / 'changes.csv'} lists them; nothing was moved", markup=False)
    if diff.studies_by_code.get(NEW):
        out.print(f"what to do: quarry retry {folder} --changed  has the new instances sent", markup=False)
