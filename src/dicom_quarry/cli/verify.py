"""``quarry verify``: compare the files with what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import err, out

#: Damaged files that are named one by one.
_SHOWN = 20


def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes only.")] = False,
) -> None:
    """Read every file again and compare it with the digest that was recorded when it arrived.

    Exit code 0 if all are as they were, 1 if not.

    Example:  quarry verify out/
    """
    files = damaged = released = 0
    for checked in api.verify(folder, quick=quick):
        files += not checked.instance.released
        released += checked.instance.released
        if checked.problem:
            damaged += 1
            if damaged <= _SHOWN:
                # A path may name a patient: elsewhere than on a terminal the SOP Instance UID must do.
                name = checked.instance.path if err.is_terminal else checked.instance.ref.sop_uid
                err.print(f"{name} {checked.problem}", markup=False)
    if damaged > _SHOWN:
        err.print(f"… and {damaged - _SHOWN:,} more")
    how = "by size" if quick else "by SHA-256"
    out.print(f"{files:,} files compared {how}: {damaged:,} damaged or missing")
    if released:
        out.print(f"{released:,} files of released studies were not looked at")
    raise typer.Exit(1 if damaged else 0)
