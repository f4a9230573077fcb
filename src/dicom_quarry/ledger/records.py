"""The nouns of the ledger's rows: requests, tasks and studies."""

from __future__ import annotations

import json
from typing import Any

from dicom_quarry.model import Request, Selection, Study, Task


def make_request(row: Any, claim: int = 0) -> Request:
    """Make the request that a row of the requests table describes."""
    keys = tuple((keyword, value) for keyword, value in json.loads(row.keys))
    others = tuple(
        tuple((keyword, value) for keyword, value in one) for one in json.loads(row.alternatives or "[]")
    )
    cells = tuple(json.loads(row.cells))
    return Request(row.row, row.line, keys, cells, alternatives=others, note=row.note, claim=claim)


def make_task(row: Any, claim: int = 0) -> Task:
    """Make the task that a row of the tasks table describes."""
    selection = Selection(frozenset(row.selection.split())) if row.selection else Selection()
    return Task(row.id, row.archive, study_of(row), selection, claim)


def study_of(row: Any) -> Study:
    """Make the study that a row of the tasks table describes."""
    return Study(
        study_uid=row.study_uid,
        patient_id=row.patient_id,
        accession=row.accession,
        study_date=row.study_date,
        modalities=row.modalities,
        description=row.description,
        series_count=row.series_count,
        instance_count=row.instance_count,
        availability=row.availability,
        extra_attributes=tuple(json.loads(row.extra_attributes).items()) if row.extra_attributes else (),
    )
