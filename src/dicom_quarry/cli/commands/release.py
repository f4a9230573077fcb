"""``quarry release``: studies whose data went elsewhere; with ``--delete`` their files here go, too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import err, out
from dicom_quarry.completion.release import Became
from dicom_quarry.reporting.formatting import counted, human_size

#: Studies that are named one by one.
_SHOWN = 20


def release(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    study: Annotated[
        list[str] | None,
        typer.Option(help="A Study Instance UID; may be repeated.  [default: all complete studies]"),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove their files, once they are verified by SHA-256.")
    ] = False,
) -> None:
    """Record that complete studies went elsewhere: they stay proved and are never fetched again.

    Without --delete those are released whose files you have moved away. May run while the job runs, and from
    its on-complete command. Exit code 1 if a study could not be released.

    Example:  quarry release out/ --study 2.25.1234 --delete
    """
    became: Counter[Became] = Counter()
    removed = size = 0
    for one in api.release(folder, study or (), delete=delete):
        became[one.became] += 1
        removed, size = removed + one.removed, size + one.size
        if one.problem and became[Became.KEPT] <= _SHOWN:
            err.print(f"study {one.study_uid}: {one.problem}; not released", markup=False)
    files = f"; {counted(removed, 'file')} removed, {human_size(size)}" if removed else ""
    out.print(f"{_studies(became[Became.RELEASED])} released{files}")
    if became[Became.BEFORE]:
        out.print(f"{_studies(became[Became.BEFORE])} had been released before")
    if became[Became.HERE]:
        out.print(
            f"{_studies(became[Became.HERE])} not released, as the files are here; --delete removes them"
        )
    if became[Became.KEPT]:
        out.print(f"{_studies(became[Became.KEPT])} not released")
    failed = became[Became.KEPT] or (study and became[Became.HERE])
    raise typer.Exit(1 if failed else 0)


def _studies(number: int) -> str:
    return counted(number, "study", "studies")
