"""``quarry list``: this user's jobs on this computer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import err, out
from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.folder import existing
from dicom_quarry.jobs.registry import registered
from dicom_quarry.jobs.status import Standing, standing
from dicom_quarry.model import Word
from dicom_quarry.system.time_text import spoken_time


def list_jobs(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List this user's jobs on this computer, the latest first: running, queued and past ones.

    Example:  quarry list
    """
    jobs = sorted(_standings(), key=lambda job: job.began, reverse=True)
    if as_json:
        print(json.dumps([_facts(job) for job in jobs], indent=2))
        return
    if not jobs:
        out.print("no jobs: none was started by this user on this computer, or their folders are gone")
    for job in jobs:
        _show(job)


def _standings() -> Iterator[Standing]:
    for path in registered():
        # A folder without a job: its table was refused, or its images were moved away.
        with suppress(InputError):
            folder = existing(path)
            try:
                yield standing(folder)
            except LedgerError as error:
                err.print(str(error), markup=False)


def _facts(job: Standing) -> dict[str, object]:
    return {
        "folder": str(job.folder.out),
        "state": job.state,
        "waiting_for": job.waiting_for or None,
        "process": job.process,
        "began": job.began.isoformat(),
        "rows": job.counts.rows,
        "rows_complete": job.counts.rows_by_word.get(Word.COMPLETE, 0),
        "seconds_left": job.live.get("seconds_left"),
    }


def _show(job: Standing) -> None:
    complete = job.counts.rows_by_word.get(Word.COMPLETE, 0)
    left = job.live.get("seconds_left")
    parts = [
        f"{job.state:<12}",
        f"{job.began.astimezone():%Y-%m-%d %H:%M}",
        f"{complete:>9,} of {job.counts.rows:,} rows complete",
        *([f"{spoken_time(left)} left"] if left is not None else []),
        _name(job.folder.out),
    ]
    out.print("  ".join(parts), markup=False)
    if job.waiting_for:
        out.print(f"{'':<12}  waiting for {job.waiting_for}", markup=False)


def _name(folder: Path) -> str:
    return visible(str(folder), limit=4096)
