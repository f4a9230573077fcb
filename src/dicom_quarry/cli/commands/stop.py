"""``quarry stop``: end a job from another terminal."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.folder import JobFolder, lock_owner, open_existing
from dicom_quarry.jobs.registry import list_registered

#: Seconds between two looks at whether a job has ended.
_POLL_INTERVAL = 0.2


def stop(
    folder: Annotated[Path | None, typer.Argument(help="The folder of a job (its --to).")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All jobs of this user on this computer.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Cancel what is in flight instead of finishing it.")
    ] = False,
) -> None:
    """Stop a running job: what is in flight is finished, and the same command goes on later.

    Returns when the job has ended.

    Example:  quarry stop out/
    """
    if (folder is None) is not all_:
        raise InputError("which job? give its folder, or --all")
    jobs = [open_existing(folder)] if folder else list(_find_jobs())
    running = [(job, process) for job in jobs if (process := lock_owner(job))]
    if not running:
        out.print("nothing to stop: no job is running")
    for job, process in running:
        _send_stop(job, process, cancel=now)
    for job, process in running:
        while lock_owner(job) == process:
            time.sleep(_POLL_INTERVAL)
        out.print(f"{job.out}: stopped; run the same command again to go on", markup=False)


def _find_jobs() -> list[JobFolder]:
    found = []
    for path in list_registered():
        with suppress(InputError):
            found.append(open_existing(path))
    return found


def _send_stop(job: JobFolder, process: int, *, cancel: bool) -> None:
    try:
        os.kill(process, signal.SIGTERM)
        if cancel:
            # Two signals at once are delivered as one: the first must have been taken.
            time.sleep(_POLL_INTERVAL)
            os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise InputError(f"{job.out} is worked on by somebody else (process {process})") from error
    what = "cancelling" if cancel else "finishing what is in flight"
    out.print(f"{job.out}: {what} (process {process})", markup=False)
