"""``quarry release``: release studies whose files were moved elsewhere, or delete their files here."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.api import ReleaseOutcome
from dicom_quarry.cli import options
from dicom_quarry.cli.console import err, out

#: Studies that are named one by one.
_MAX_SHOWN = 20


def release(
    folder: options.Folder,
    study: Annotated[
        list[str] | None,
        typer.Option(help="A Study Instance UID; repeatable.  [default: all complete studies]"),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete their files here, after verifying them by SHA-256.")
    ] = False,
    trust_owner: options.TrustOwner = False,
) -> None:
    """Release studies whose files were moved elsewhere.

    Released studies stay complete and are never fetched again. Without --delete only studies are released
    whose files you have moved away. May run while the job runs, and from its on-complete command. Exit code 1
    if a study could not be released.

    Examples:
      quarry release out/
      quarry release out/ --study 2.25.1234
      quarry release out/ --study 2.25.1234 --delete
    """
    counts: Counter[ReleaseOutcome] = Counter()
    removed = size = 0
    for one in api.release(folder, study or (), delete=delete, trust_owner=trust_owner):
        counts[one.outcome] += 1
        removed, size = removed + one.removed, size + one.size
        if one.problem and counts[ReleaseOutcome.NOT_RELEASED] <= _MAX_SHOWN:
            err.print(f"study {one.study_uid}: {one.problem}; not released")
    files = f"; {api.format_count(removed, 'file')} removed, {api.format_size(size)}" if removed else ""
    out.print(f"{_count_studies(counts[ReleaseOutcome.RELEASED])} released{files}")
    if counts[ReleaseOutcome.ALREADY_RELEASED]:
        out.print(f"{_count_studies(counts[ReleaseOutcome.ALREADY_RELEASED])} had been released before")
    if counts[ReleaseOutcome.STILL_PRESENT]:
        studies = _count_studies(counts[ReleaseOutcome.STILL_PRESENT])
        out.print(f"{studies} not released: the files are still in the folder. --delete deletes them")
    if counts[ReleaseOutcome.NOT_RELEASED]:
        out.print(f"{_count_studies(counts[ReleaseOutcome.NOT_RELEASED])} not released")
    failed = counts[ReleaseOutcome.NOT_RELEASED] or (study and counts[ReleaseOutcome.STILL_PRESENT])
    raise typer.Exit(1 if failed else 0)


def _count_studies(number: int) -> str:
    return api.format_count(number, "study")
