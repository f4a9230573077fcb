"""``quarry status``: where a job stands, from another terminal or afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.jobs.status import JobStatus, read_job_status
from dicom_quarry.ledger.reader import Counts
from dicom_quarry.model import OnCompleteState, OutcomeStatus
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.system.durations import format_duration


def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show where a job stands.

    Exit code 0 every row complete, 1 finished with exceptions, 4 not finished.

    Example:  quarry status out/
    """
    job = read_job_status(open_existing(folder))
    if as_json:
        print(json.dumps(_to_json(job), indent=2))
    else:
        _show_job(job)
    raise typer.Exit(_exit_code(job.counts))


def _exit_code(counts: Counts) -> int:
    if not counts.is_finished:
        return 4
    return (
        0
        if set(counts.rows_by_status) <= {OutcomeStatus.COMPLETE}
        and not counts.on_complete_counts.get(OnCompleteState.FAILED)
        else 1
    )


def _to_json(job: JobStatus) -> dict[str, object]:
    counts, live = job.counts, job.progress
    return {
        "running": job.process is not None,
        "queued": job.is_queued,
        "process": job.process,
        "finished": counts.is_finished,
        "rows": counts.rows,
        "rows_by_outcome": dict(counts.rows_by_status),
        "studies": counts.studies,
        "studies_complete": counts.studies_complete,
        "studies_released": counts.studies_released,
        "on_complete": counts.on_complete_counts,
        "instances_expected": counts.instances_expected,
        "instances_stored": counts.instances_stored,
        "bytes": counts.size,
        "bytes_per_second": live.get("bytes_per_second"),
        "seconds_left": live.get("seconds_left"),
        "waiting_for": job.waiting_for or None,
        "active_studies": live.get("active_studies", []),
    }


def _show_job(job: JobStatus) -> None:
    counts, live = job.counts, job.progress
    if job.process:
        out.print(f"{'queued' if job.is_queued else 'running'} (process {job.process})")
    else:
        out.print(
            "finished" if counts.is_finished else "not running, not finished: run the same command again"
        )
    for status_word, count in counts.rows_by_status.items():
        out.print(f"  {count:>9,} rows {status_word.replace('_', ' ')}")
    out.print(
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{counts.instances_stored:,} instances, {format_size(counts.size)}"
    )
    for state, count in counts.on_complete_counts.items():
        out.print(f"  {count:>9,} studies: on-complete {state}")
    if counts.studies_released:
        out.print(f"  {counts.studies_released:>9,} studies released: the data went elsewhere")
    for study in live.get("active_studies", []):
        out.print(f"  row {study['row']}: {study['stored']:,} of {study['listed']:,} instances")
    if job.waiting_for:
        out.print(f"waiting for {job.waiting_for}", markup=False)
    if live.get("seconds_left") is not None:
        out.print(
            f"{format_size(round(live['bytes_per_second']))}/s, {format_duration(live['seconds_left'])} left"
        )
