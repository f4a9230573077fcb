"""``quarry status``: the state of a job, while it runs or afterwards."""

from __future__ import annotations

import json

import typer

from dicom_quarry import api
from dicom_quarry.api import JobStatus, JobView
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder, resume_command
from dicom_quarry.cli.console import out


def status(folder: options.FolderOrDefault = None, as_json: options.AsJson = False) -> None:
    """Show the progress of a job.

    Rows, studies and instances so far, and the time left.

    Exit codes: 0 every row complete or filtered; 1 finished, some rows need attention; 4 not finished.

    Examples:
      quarry status out/
      quarry status
      quarry status out/ --json
    """
    with api.open_job(choose_folder(folder)) as opened:
        job = opened.status()
        if as_json:
            print(json.dumps(_to_json(job, api.read_job_view(opened)), indent=2))
        else:
            _show_job(job)
    raise typer.Exit(api.status_exit_code(job))


def _to_json(job: JobStatus, view: JobView) -> dict[str, object]:
    return {
        **api.job_dict(view),
        "job": api.job_key(job.folder.out),
        "name": job.folder.name,
        "queued": job.is_queued,
        "stopping": view.is_stopping,
        "killed": view.was_killed,
        "process": view.process,
        "host": job.holder.host or None if job.holder else None,
        "finished": job.counts.is_finished,
        "resume": resume_command(job.folder.label) if job.can_be_resumed else None,
        "instances_missing": view.instances_missing,
        "active_studies": job.progress.get("active_studies", []),
        "verification": api.file_check_dict(job.file_check) if job.file_check else None,
    }


def _show_job(job: JobStatus) -> None:
    counts, progress = job.counts, job.progress
    if job.holder:
        out.print(f"{'queued' if job.is_queued else 'running'} ({job.holder})")
    elif counts.is_finished:
        out.print("finished")
    else:
        out.print(f"Not finished, and not running. To continue: {resume_command(job.folder.label)}")
    for outcome, count in counts.rows_by_status.items():
        out.print(f"  {count:>9,} {'row' if count == 1 else 'rows'} {outcome.replace('_', ' ')}")
    out.print(
        f"{api.format_part(counts.studies_complete, counts.studies, 'study')} complete, "
        f"{api.format_count(counts.instances_stored, 'instance')}, {api.format_size(counts.size)}"
    )
    for state, count in counts.on_complete_counts.items():
        out.print(f"  {count:>9,} {'study' if count == 1 else 'studies'}: on-complete {state}")
    if counts.studies_released:
        released = "study" if counts.studies_released == 1 else "studies"
        out.print(f"  {counts.studies_released:>9,} {released} released: the files were moved elsewhere")
    for study in progress.get("active_studies", []):
        found = job.active_studies.get(study["row"])
        keys = (found.patient_id, found.accession) if found and out.is_terminal else ("", "")
        part = api.format_part(study["stored"], study["listed"], "instance")
        out.print(f"  {api.format_study(study['row'], *keys)}: {part}")
    if job.damage:
        out.print(api.describe_damage(job.damage, job.folder.out))
    if job.file_check and (text := api.describe_file_check(job.file_check, job.folder.label)):
        out.print(text)
    if job.waiting_for:
        out.print(f"waiting for {job.waiting_for}")
    if progress.get("seconds_left") is not None:
        rate = api.format_size(round(progress["bytes_per_second"]))
        out.print(f"{rate}/s, {api.format_left(progress['seconds_left'])}")
