"""``quarry stop``: stop a job from another terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import resume_command
from dicom_quarry.cli.console import fail, out
from dicom_quarry.errors import InputError


def stop(
    folder: options.OptionalFolder = None,
    all_: Annotated[bool, typer.Option("--all", help="All jobs of this user on this computer.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Cancel the studies being transferred instead of finishing them.")
    ] = False,
) -> None:
    """Stop a running job.

    The studies being transferred are finished first. Returns when the job has ended. Run the command of the
    job again to continue it. Workers that compare the files of job:NAME end that, too.

    Examples:
      quarry stop out/
      quarry stop out/ --now
      quarry stop --all
    """
    if (folder is None) is not all_:
        raise InputError("Which job? Give its folder, or --all for all jobs")
    if folder is None:
        running = api.find_running_jobs(fail)
    else:
        job = api.find_running_job(folder)
        running = [job] if job else []
    if not running:
        out.print("Nothing to stop: no job is running")
    action = "cancelling" if now else "finishing"
    for job in running:
        job.stop(cancel=now)
        what = (
            "ending the comparison of its files"
            if job.is_compared
            else f"{action} the studies being transferred"
        )
        out.print(f"{job.folder.label}: {what} ({job.holder})")
    for job in running:
        job.wait()
        label = job.folder.label
        command = f"quarry verify {label}" if job.is_compared else resume_command(label)
        out.print(f"{label}: stopped. To continue: {command}")
