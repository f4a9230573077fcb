"""What must not be taken: the lists of the user and the site, and what is here of it from before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dicom_quarry.cohort.exclusion_list import ExclusionList, read_exclusions
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.jobs import record
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.ledger.exclusions import (
    StoredTask,
    delete_instance_records,
    mark_stored_excluded,
    stored_tasks,
)
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader, PathFunction
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE

_log = logging.getLogger(__name__)


def load_exclusions(settings: Settings, site: SitePolicy) -> ExclusionList:
    """What the lists of the user and of the site name. Raises InputError where one cannot be used."""
    return read_exclusions((*settings.exclude, *site.exclude), record.parse_read_options(settings))


def update_stored_exclusions(
    ledger: Ledger,
    reader: LedgerReader,
    exclusions: ExclusionList,
    out: Path,
    path_of: PathFunction,
    audit: AuditLog,
) -> None:
    """Look at what earlier runs have stored: what is on a list by now is marked, for a person to remove it.

    What that person has removed is forgotten, but not what was released elsewhere. Nothing is deleted here.
    """
    if not exclusions:
        return
    for one in stored_tasks(ledger.database):
        keys = exclusions.match_study(one.study)
        marked = CATALOGUE[one.code].status is OutcomeStatus.EXCLUDED
        if keys and not marked:
            # A proof knows where they are, and another try gives it up.
            ledger.add_folders(one.task_id, _folders(one, reader, path_of)).result()
            row = ledger.first_row(one.task_id)
            audit.write("excluded", one.study, row=row, instances=one.stored, details="stored before")
            mark_stored_excluded(ledger.database, one, keys)
            _log.warning("row %d is on the exclusion list now, and is stored", row)
        elif (
            marked
            and not one.released
            and not any((out / path).exists() for path in _paths(one, reader, path_of))
        ):
            audit.write("removed", one.study, row=ledger.first_row(one.task_id), instances=one.stored)
            delete_instance_records(ledger.database, one)


def _folders(one: StoredTask, reader: LedgerReader, path_of: PathFunction) -> set[str]:
    return {str(path.parent) for path in _paths(one, reader, path_of)}


def _paths(one: StoredTask, reader: LedgerReader, path_of: PathFunction) -> Iterator[PurePosixPath]:
    return (instance.path for instance in reader.instances(path_of, study_uid=one.study.study_uid))
