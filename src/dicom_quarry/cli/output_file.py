"""The files that a command is to write: checked before the archive is queried."""

from __future__ import annotations

import os
from pathlib import Path

from dicom_quarry.errors import InputError


def check_output_file(path: Path, example: str) -> None:
    """Raise InputError if a file cannot be written; ``example`` is a name for it."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it, such as {path / example}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"{path} cannot be written: you may not write there. Name another file")


def check_plan_file(path: Path, cohort: Path, *, is_plan: bool) -> None:
    """Raise InputError if a plan cannot be written to a file, or would replace another one.

    ``is_plan``: the file that is there now, if any, is an earlier plan.
    """
    if str(path) == "-":
        raise InputError("-o takes the name of a file. To print the plan, use --json")
    if path.suffix.casefold() in (".xlsx", ".xls"):
        raise InputError(
            f"{path}: a plan is written as CSV or JSON, and Excel opens the CSV. Name it "
            f"{path.with_suffix('.csv')}"
        )
    check_output_file(path, "plan.csv")
    if not path.exists():
        return
    if cohort.exists() and path.samefile(cohort):
        raise InputError(f"{path} is the table itself, and the plan would replace it. Name another file")
    if not is_plan and path.stat().st_size:
        raise InputError(f"{path} exists already, and is no plan. Name another file, or move it elsewhere")
