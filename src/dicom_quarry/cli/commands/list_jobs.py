"""``quarry list``: this user's jobs on this computer."""

from __future__ import annotations

import json

from dicom_quarry import api
from dicom_quarry.api import JobStatus
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import resume_command
from dicom_quarry.cli.console import err, out
from dicom_quarry.model import OutcomeStatus

#: The longest path that Linux takes (PATH_MAX).
_MAX_PATH = 4096


def list_jobs(as_json: options.AsJson = False) -> None:
    """List your jobs on this computer.

    Running, queued and past jobs, the latest first.

    Examples:
      quarry list
      quarry list --json
      quarry list | grep 'to continue'
    """
    problems: dict[str, None] = {}  # a database that is away is that of several jobs
    jobs = api.list_job_statuses(on_damaged=lambda error: problems.setdefault(str(error)))
    for problem in problems:
        err.print(problem)
    if as_json:
        print(json.dumps([_to_json(job) for job in jobs], indent=2))
        return
    if not (jobs or problems):
        out.print("No jobs: you have started none on this computer, or their folders are gone")
    for job in jobs:
        _show_job(job)


def _to_json(job: JobStatus) -> dict[str, object]:
    return {
        "name": job.folder.name,
        "folder": str(job.folder.out),
        "state": job.state,
        "waiting_for": job.waiting_for or None,
        "process": job.process,
        "host": job.holder.host or None if job.holder else None,
        "resume": resume_command(job.folder.label) if job.can_be_resumed else None,
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
        f"{complete:>9,} of {api.format_count(job.counts.rows, 'row')} complete",
        *([api.format_left(left)] if left is not None else []),
        *([job.folder.label] if job.folder.name else []),
        api.escape_text(str(job.folder.out), limit=_MAX_PATH),
    ]
    out.print("  ".join(parts))
    if job.waiting_for:
        out.print(f"{'':<12}  waiting for {job.waiting_for}")
    if job.can_be_resumed:
        out.print(f"{'':<12}  to continue: {resume_command(job.folder.label)}")
