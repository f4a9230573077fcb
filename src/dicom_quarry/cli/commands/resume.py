"""``quarry resume``: continue a job with the options and the rows of its record."""

from __future__ import annotations

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder
from dicom_quarry.cli.detach import run_in_background
from dicom_quarry.cli.display.run_job import run_job


def resume(
    folder: options.OptionalFolder = None,
    trust_owner: options.TrustOwner = False,
    queue: options.Queue = False,
    detach: options.Detach = False,
) -> None:
    """Continue a job that was stopped, with the same options.

    The options and the rows are those of the job's record: no table is needed. The site's policy, passwords
    and tokens are read again. To change an option or the table, run quarry extract. Without a folder, the job
    is that of the setting to in quarry.toml, or that of the current folder.

    Examples:
      quarry resume out/
      quarry resume out/ --detach
      quarry resume
    """
    chosen = choose_folder(folder, changes_job=True)
    if detach:
        run_in_background()
    settings = api.load_job_settings(chosen, trust_owner=trust_owner)
    work = api.with_file_check(lambda runner: runner.resume())
    raise typer.Exit(run_job(settings, work, queue=queue, continues=True))
