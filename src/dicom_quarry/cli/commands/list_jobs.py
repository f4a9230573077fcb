"""``quarry list``: this user's jobs on this computer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import err, out
from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.jobs.registry import list_registered
from dicom_quarry.jobs.status import JobStatus, read_job_status
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.text_safety import escape_text


def list_jobs(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List this user's jobs on this computer, the latest first: running, queued and past ones.

    Example:  quarry list
    """
    jobs = sorted(_read_statuses(), key=lambda job: job.started_at, reverse=True)
    if as_json:
        print(json.dumps([_to_json(job) for job in jobs], indent=2))
        return
    if not jobs:
        out.print("no jobs: none was started by this user on this computer, or their folders are gone")
    for job in jobs:
        _show_job(job)


def _read_statuses() -> Iterator[JobStatus]:
    for path in list_registered():
        # A folder without a job: its table was refused, or its images were moved away.
        with suppress(InputError):
            folder = open_existing(path)
            try:
                yield read_job_status(folder)
            except LedgerError as error:
                err.print(str(error), markup=False)


def _to_json(job: JobStatus) -> dict[str, object]:
    return {
        "folder": str(job.folder.out),
        "state": job.state,
        "waiting_for": job.waiting_for or None,
        "process": job.process,
        "began": job.started_at.isoformat(),
        "rows": job.counts.rows,
        "rows_complete": job.counts.rows_by_status.get(OutcomeStatus.COMPLETE, 0),
        "seconds_left": job.progress.get("seconds_left"),
    }


def _show_job(job: JobStatus) -> None:
    complete = job.counts.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    left = job.progress.get("seconds_left")
    parts = [
        f"{job.state:<12}",
        f"{job.started_at.astimezone():%Y-%m-%d %H:%M}",
        f"{complete:>9,} of {job.counts.rows:,} rows complete",
        *([f"{format_duration(left)} left"] if left is not None else []),
        _format_folder(job.folder.out),
    ]
    out.print("  ".join(parts), markup=False)
    if job.waiting_for:
        out.print(f"{'':<12}  waiting for {job.waiting_for}", markup=False)


def _format_folder(folder: Path) -> str:
    return escape_text(str(folder), limit=4096)
