"""Studies of earlier runs that are on an exclusion list now: marked in the ledger, never deleted here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import PurePosixPath

from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.ledger.exclusions import (
    StoredTask,
    delete_instance_records,
    mark_stored_excluded,
    stored_tasks,
)
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE

_log = logging.getLogger(__name__)


def update_stored_exclusions(context: JobContext, reader: LedgerReader) -> None:
    """Mark stored studies that are on an exclusion list now, so that a person removes their files.

    The records of files that were removed are deleted, except those of released studies.
    """
    with context.folder.named_lock("exclusions"):  # workers do this, too
        _update(context, reader)


def _update(context: JobContext, reader: LedgerReader) -> None:
    ledger, audit_log = context.ledger, context.audit_log
    for one in stored_tasks(ledger.database):
        keys = context.queries.exclusions.match_study(one.study)
        marked = CATALOGUE[one.code].status is OutcomeStatus.EXCLUDED
        paths = list(_paths(one, context, reader)) if keys or marked else []
        if keys and not marked:
            # A later try looks for the files in these folders.
            ledger.add_folders(one.task_id, {str(path.parent) for path in paths}).result()
            row = ledger.first_row(one.task_id)
            audit_log.write("excluded", one.study, row=row, instances=one.stored, details="stored before")
            mark_stored_excluded(ledger.database, one, keys)
            _log.warning("row %d is on the exclusion list now, and is stored", row)
        elif marked and not one.released and not any((context.folder.out / path).exists() for path in paths):
            row = ledger.first_row(one.task_id)
            audit_log.write("removed", one.study, row=row, instances=one.stored)
            delete_instance_records(ledger.database, one)


def _paths(one: StoredTask, context: JobContext, reader: LedgerReader) -> Iterator[PurePosixPath]:
    return (file.path for file in reader.instances(context.path_of, study_uid=one.study.study_uid))
