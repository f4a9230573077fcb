"""``quarry status``: where a job stands, from another terminal or afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.jobs.folder import existing
from dicom_quarry.jobs.status import Standing, standing
from dicom_quarry.ledger.reader import Counts
from dicom_quarry.ledger.schema import FAILED
from dicom_quarry.model import Word
from dicom_quarry.reporting.formatting import human_size
from dicom_quarry.system.time_text import spoken_time


def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show where a job stands.

    Exit code 0 every row complete, 1 finished with exceptions, 4 not finished.

    Example:  quarry status out/
    """
    job = standing(existing(folder))
    if as_json:
        print(json.dumps(_facts(job), indent=2))
    else:
        _show(job)
    raise typer.Exit(_exit_code(job.counts))


def _exit_code(counts: Counts) -> int:
    if not counts.finished:
        return 4
    return 0 if set(counts.rows_by_word) <= {Word.COMPLETE} and not counts.hand_overs.get(FAILED) else 1


def _facts(job: Standing) -> dict[str, object]:
    counts, live = job.counts, job.live
    return {
        "running": job.process is not None,
        "queued": job.queued,
        "process": job.process,
        "finished": counts.finished,
        "rows": counts.rows,
        "rows_by_outcome": dict(counts.rows_by_word),
        "studies": counts.studies,
        "studies_complete": counts.studies_complete,
        "studies_released": counts.studies_released,
        "on_complete": counts.hand_overs,
        "instances_expected": counts.instances_expected,
        "instances_stored": counts.instances_stored,
        "bytes": counts.size,
        "bytes_per_second": live.get("bytes_per_second"),
        "seconds_left": live.get("seconds_left"),
        "waiting_for": job.waiting_for or None,
        "moving": live.get("moving", []),
    }


def _show(job: Standing) -> None:
    counts, live = job.counts, job.live
    if job.process:
        out.print(f"{'queued' if job.queued else 'running'} (process {job.process})")
    else:
        out.print("finished" if counts.finished else "not running, not finished: run the same command again")
    for word, count in counts.rows_by_word.items():
        out.print(f"  {count:>9,} rows {word.replace('_', ' ')}")
    out.print(
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{counts.instances_stored:,} instances, {human_size(counts.size)}"
    )
    for state, count in counts.hand_overs.items():
        out.print(f"  {count:>9,} studies: on-complete {state}")
    if counts.studies_released:
        out.print(f"  {counts.studies_released:>9,} studies released: the data went elsewhere")
    for moving in live.get("moving", []):
        out.print(f"  row {moving['row']}: {moving['stored']:,} of {moving['listed']:,} instances")
    if job.waiting_for:
        out.print(f"waiting for {job.waiting_for}", markup=False)
    if live.get("seconds_left") is not None:
        out.print(
            f"{human_size(round(live['bytes_per_second']))}/s, {spoken_time(live['seconds_left'])} left"
        )
