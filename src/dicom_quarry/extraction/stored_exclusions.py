"""What must not be taken: the lists of the user and the site, and what is here of it from before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dicom_quarry.cohort.exclusion_list import Exclusions, read_exclusions
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.jobs import record
from dicom_quarry.jobs.audit_log import Audit
from dicom_quarry.ledger.exclusions import StoredTask, exclude_stored, forget_stored, stored_tasks
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Derive, Reader
from dicom_quarry.model import Word
from dicom_quarry.outcomes import CATALOGUE

_log = logging.getLogger(__name__)


def exclusions_of(settings: Settings, site: SitePolicy) -> Exclusions:
    """What the lists of the user and of the site name. Raises InputError where one cannot be used."""
    return read_exclusions((*settings.exclude, *site.exclude), record.reading(settings))


def check_stored(
    ledger: Ledger, reader: Reader, exclusions: Exclusions, out: Path, derive: Derive, audit: Audit
) -> None:
    """Look at what earlier runs have stored: what is on a list by now is marked, for a person to remove it.

    What that person has removed is forgotten, but not what was released elsewhere. Nothing is deleted here.
    """
    if not exclusions:
        return
    for one in stored_tasks(ledger.database):
        keys = exclusions.study(one.study)
        marked = CATALOGUE[one.code].word is Word.EXCLUDED
        if keys and not marked:
            # A proof knows where they are, and another try gives it up.
            ledger.add_folders(one.task_id, _folders(one, reader, derive)).result()
            row = ledger.first_row(one.task_id)
            audit.write("excluded", one.study, row=row, instances=one.stored, details="stored before")
            exclude_stored(ledger.database, one, keys)
            _log.warning("row %d is on the exclusion list now, and is stored", row)
        elif (
            marked
            and not one.released
            and not any((out / path).exists() for path in _paths(one, reader, derive))
        ):
            audit.write("removed", one.study, row=ledger.first_row(one.task_id), instances=one.stored)
            forget_stored(ledger.database, one)


def _folders(one: StoredTask, reader: Reader, derive: Derive) -> set[str]:
    return {str(path.parent) for path in _paths(one, reader, derive)}


def _paths(one: StoredTask, reader: Reader, derive: Derive) -> Iterator[PurePosixPath]:
    return (instance.path for instance in reader.instances(derive, study_uid=one.study.study_uid))
