"""``quarry release``: studies whose data went elsewhere; with ``--delete`` their files here go, too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import err, out
from dicom_quarry.completion.release import ReleaseOutcome
from dicom_quarry.reporting.formatting import format_count, format_size

#: Studies that are named one by one.
_MAX_SHOWN = 20


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
    counts: Counter[ReleaseOutcome] = Counter()
    removed = size = 0
    for one in api.release(folder, study or (), delete=delete):
        counts[one.outcome] += 1
        removed, size = removed + one.removed, size + one.size
        if one.problem and counts[ReleaseOutcome.NOT_RELEASED] <= _MAX_SHOWN:
            err.print(f"study {one.study_uid}: {one.problem}; not released", markup=False)
    files = f"; {format_count(removed, 'file')} removed, {format_size(size)}" if removed else ""
    out.print(f"{_count_studies(counts[ReleaseOutcome.RELEASED])} released{files}")
    if counts[ReleaseOutcome.ALREADY_RELEASED]:
        out.print(f"{_count_studies(counts[ReleaseOutcome.ALREADY_RELEASED])} had been released before")
    if counts[ReleaseOutcome.STILL_PRESENT]:
        out.print(
            f"{_count_studies(counts[ReleaseOutcome.STILL_PRESENT])} not released, as the files are here; --delete removes them"
        )
    if counts[ReleaseOutcome.NOT_RELEASED]:
        out.print(f"{_count_studies(counts[ReleaseOutcome.NOT_RELEASED])} not released")
    failed = counts[ReleaseOutcome.NOT_RELEASED] or (study and counts[ReleaseOutcome.STILL_PRESENT])
    raise typer.Exit(1 if failed else 0)


def _count_studies(number: int) -> str:
    return format_count(number, "study", "studies")
