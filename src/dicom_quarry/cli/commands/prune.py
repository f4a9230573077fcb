"""``quarry prune``: move away, or delete, the files of studies that no row of the table requests any more."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.console import out


def prune(
    folder: options.Folder,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete their files instead of moving them.")
    ] = False,
    trust_owner: options.TrustOwner = False,
) -> None:
    """Move away stored studies that no row requests any more.

    A table with fewer rows (--update) leaves such studies. Their files are moved to the folder .quarry/pruned
    of the job; nothing is deleted without --delete. If a row requests such a study again, it is fetched
    again. Released studies stay as they are. Not while the job runs.

    Examples:
      quarry prune out/
      quarry prune out/ --delete
      quarry extract cohort.csv --to out/ --update
    """
    studies = files = size = 0
    for one in api.prune(folder, delete=delete, trust_owner=trust_owner):
        studies, files, size = studies + 1, files + one.files, size + one.size
    if not studies:
        out.print("Nothing to do: a row of the table requests every stored study")
        return
    where = "deleted" if delete else f"moved to {api.find_folder(folder) / '.quarry' / 'pruned'}"
    out.print(
        f"{api.format_count(studies, 'study')} that no row requests: "
        f"{api.format_count(files, 'file')} ({api.format_size(size)}) {where}"
    )
    api.report(folder)
