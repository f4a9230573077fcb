"""The view of a job as a dict that ``json`` can write, for scripts and notebooks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dicom_quarry.ledger.activity import ArchiveLoad
from dicom_quarry.reporting.formatting import format_timestamp
from dicom_quarry.reporting.job_view import JobView

if TYPE_CHECKING:
    from dicom_quarry.jobs.cluster.file_check import FileCheckState


def job_dict(view: JobView) -> dict[str, object]:
    """Return the numbers of a job, without anything from the user's table; docs/python.md lists the keys."""
    return {
        "state": view.state,
        "running": view.process is not None,
        "verdict": view.verdict,
        "started_at": format_timestamp(view.started_at),
        "ended_at": _timestamp_or_none(view.ended_at),
        "rows": view.rows,
        "rows_done": view.rows_done,
        "rows_needing_attention": view.rows_needing_attention,
        "rows_by_outcome": {str(status): number for status, number in view.rows_by_status.items()},
        "rows_by_code": {one.code: one.rows for one in view.outcomes},
        "studies": view.studies,
        "studies_complete": view.studies_complete,
        "studies_released": view.studies_released,
        "studies_by_outcome": {str(status): number for status, number in view.studies_by_status.items()},
        "on_complete": {str(state): number for state, number in view.on_complete_counts.items()},
        "instances_expected": view.instances_expected,
        "instances_stored": view.instances_stored,
        "bytes": view.size,
        "files_damaged": view.files_damaged,
        "bytes_per_second": view.bytes_per_second,
        "seconds_left": view.seconds_left,
        "waiting_for": view.waiting_for or None,
        "flow": [
            {"step": step.label, "rows": step.rows, "leaving": dict(step.leaving)} for step in view.flow
        ],
        "archives": {name: _load_dict(load) for name, load in view.activity.archives.items()},
    }


def file_check_dict(check: FileCheckState) -> dict[str, object]:
    """Return the comparison of a job's files by the workers, as ``quarry status --json`` has it."""
    return {
        "running": check.is_active,
        "started_at": format_timestamp(check.started),
        "ended_at": _timestamp_or_none(check.ended),
        "files": check.done.files,
        "bytes": check.done.size,
        "files_damaged": check.damaged,
        "files_unrecorded": check.unrecorded,
    }


def _load_dict(load: ArchiveLoad) -> dict[str, object]:
    total = load.total
    return {
        "queries": total.queries,
        "retrievals": total.retrievals,
        "refusals": total.refusals,
        "instances": round(total.instances),
        "bytes": round(total.size),
    }


def _timestamp_or_none(when: datetime | None) -> str | None:
    return None if when is None else format_timestamp(when)
