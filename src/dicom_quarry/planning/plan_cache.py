"""The plans of this user: ledgers with query results, found again by a digest of what the results depend on.

A plan has the ledger of a job, so that a job can start with its results. A changed cohort, another archive or
another rule has another digest, and so another plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from dicom_quarry.cohort.cohort import CohortFile
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import LedgerError, StartError
from dicom_quarry.jobs import record
from dicom_quarry.jobs.folder import reject_network_file_system
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.open_place import open_for_run
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.registry import make_state_folder, state_home
from dicom_quarry.ledger.copying import snapshot_of
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.system.atomic_file import replace_file
from dicom_quarry.system.ownership import NotOwned, open_own_file, require_own_folder
from dicom_quarry.version import __version__

_log = logging.getLogger(__name__)

#: Settings without an influence on query results. A new setting is part of the digest until it is listed
#: here: a plan may then be made again without need, but is never used wrongly.
_IRRELEVANT_SETTINGS = {
    "archives",
    "to",
    "local",
    "state",
    "file_mode",
    "group",
    "tls",
    "filepath",
    "portable_names",
    "parallel",
    "accept_mismatch",
    "exclude",
    "protocol",
    "skip_bad_rows",
    "keep_free",
    "room",
    "give_up_after",
    "plan_age",
    "notify",
    "on_complete",
    "on_complete_parallel",
    "on_complete_limit",
    "on_complete_patience",
    "on_complete_env",
    "trust_owner",
    "cluster",
    "job",
}
#: The user may raise this setting after reading the plan (``extract --yes``): the rows with too many studies
#: are then queried again. A lower value makes another plan.
_RAISABLE_SETTING = "max_studies"
#: Fields of an archive's profile with an influence on query results.
_RELEVANT_PROFILE_FIELDS = {
    "name",
    "address",
    "dicomweb",
    "model",
    "character_set",
    "result_cap",
    "max_queries_per_row",
}

#: Outcomes of the rows to query again: failed queries, and rows that a raised limit allows.
_REQUERY_CODES = frozenset({"query_failed", "too_many_studies"})

#: Plans that were not used for so long are deleted.
_MAX_AGE = timedelta(days=30)


def plan_folder(cohort: CohortFile, settings: Settings, exclusion_digest: str = "") -> LocalPlace:
    """Return the folder of a cohort's plan, whether or not it exists.

    ``exclusion_digest`` is the digest of the exclusion lists.
    """
    key = {
        "version": __version__,
        "cohort": cohort.digest,
        "archives": [
            one.model_dump(mode="json", include=_RELEVANT_PROFILE_FIELDS) for one in settings.archives
        ],
        "rules": settings.model_dump(mode="json", exclude={*_IRRELEVANT_SETTINGS, _RAISABLE_SETTING}),
        # A list that has grown makes another plan, without the studies on it.
        **({"excluded": exclusion_digest} if exclusion_digest else {}),
    }
    text = json.dumps(key, sort_keys=True)
    path = _plans_root() / hashlib.sha256(text.encode()).hexdigest()[:32]
    return LocalPlace(path, path)


@contextmanager
def open_plan(
    cohort: CohortFile, settings: Settings, *, detailed: bool, exclusion_digest: str = ""
) -> Iterator[tuple[LocalPlace, Ledger, datetime | None]]:
    """Open the plan of a cohort: yields its folder, its ledger with all rows, and the time of its results.

    The time is None if the plan has no usable results: there are none, they are too old, or they lack the
    details. Raises InputError for an unsuitable folder, and StartError while another process makes the plan.
    """
    folder = plan_folder(cohort, settings, exclusion_digest)
    make_state_folder(folder.state)
    require_own_folder(folder.state, trust_owner=settings.trust_owner)
    reject_network_file_system(folder.state, "with the variable XDG_STATE_HOME")
    since: datetime | None = None

    def delete_if_unusable() -> None:
        nonlocal since
        since = _usable_since(folder, settings, detailed=detailed)
        if since is None:
            _delete_database(folder.ledger)

    with open_for_run(folder, prepare=delete_if_unusable, is_plan=True) as ledger:
        if since is None:
            record.record_cohort(ledger, cohort, record.build_plan_metadata(cohort, settings))
            ledger.set_metadata(detailed="yes" if detailed else "")
        else:
            _requery(ledger, settings)
        yield folder, ledger, since


def reuse(folder: JobPlace, cohort: CohortFile, settings: Settings, exclusion_digest: str = "") -> str | None:
    """Copy the results of a cohort's plan into a job that has not begun.

    Returns a message for the user, None if there is no usable plan. A plan only saves queries, so no failure
    here keeps the job from starting.
    """
    plan = plan_folder(cohort, settings, exclusion_digest)
    try:
        if not plan.ledger.is_file() or _has_begun(folder):
            return None
        require_own_folder(plan.state, trust_owner=settings.trust_owner)
        with plan.lock(runs_job=False):
            since = _usable_since(plan, settings, detailed=False)
            if since is None:
                return None
            metadata = {
                **record.build_job_metadata(cohort, settings, folder.out),
                "planned": since.isoformat(),
            }
            if isinstance(folder, LocalPlace):
                _copy_ledger(plan, folder, settings, metadata)
            else:
                _copy_rows(plan, folder.ledger, settings, metadata)
            return reuse_message(since, datetime.now(UTC))
    except (StartError, NotOwned, LedgerError, OSError, sqlite3.Error) as error:
        _log.info("the plan of this cohort is not used: %s", error)
        return None


def _has_begun(folder: JobPlace) -> bool:
    if isinstance(folder, LocalPlace) and not folder.ledger.is_file():
        return False
    return has_job(folder.ledger)


def reuse_message(since: datetime, now: datetime) -> str:
    """Describe the plan whose results are used, with its local time, and its date if that is not today's."""
    local_since, local_now = since.astimezone(), now.astimezone()
    is_today = local_since.date() == local_now.date()
    when = f"{local_since:%H:%M}" if is_today else f"{local_since:%Y-%m-%d %H:%M}"
    return f"using the query results of your plan from {when}; the archive is not queried again"


def delete_expired(now: datetime) -> None:
    """Delete the plans that were not used for a month."""
    for path in _plans_root().glob("?" * 32):
        folder = LocalPlace(path, path)
        with suppress(OSError, StartError):
            if now.timestamp() - folder.ledger.stat().st_mtime < _MAX_AGE.total_seconds():
                continue
            with folder.lock(runs_job=False):
                _delete_database(folder.ledger)
                folder.log.unlink(missing_ok=True)
                (path / "lock").unlink()
                # Fails if the folder contains other files: they are not Quarry's.
                path.rmdir()


def _plans_root() -> Path:
    return state_home() / "plans"


def _usable_since(plan: LocalPlace, settings: Settings, *, detailed: bool) -> datetime | None:
    """Return the time of a plan's results; None if there is no plan, or it cannot be used."""
    try:
        if not plan.ledger.is_file() or not has_job(plan.ledger):
            return None
        with closing(LedgerReader(plan.ledger)) as reader:
            metadata = reader.metadata()
        since = datetime.fromisoformat(metadata["created"])
    except (LedgerError, KeyError, ValueError):
        return None  # left by a crash, damaged, or of another version: the plan is made again
    if (detailed and not metadata.get("detailed")) or _study_limit(metadata) > settings.max_studies:
        return None
    age = (datetime.now(UTC) - since).total_seconds()
    return since if 0 <= age < settings.plan_age else None


def _study_limit(metadata: Mapping[str, str]) -> int:
    """Return the largest number of studies that a row could match when the plan was made."""
    return int(json.loads(metadata["settings"])[_RAISABLE_SETTING])


def _requery(ledger: Ledger, settings: Settings) -> None:
    ledger.retry(_requery_codes(ledger.metadata(), settings))
    ledger.set_metadata(settings=settings.model_dump_json())


def _requery_codes(metadata: Mapping[str, str], settings: Settings) -> frozenset[str]:
    raised = settings.max_studies > _study_limit(metadata)
    return _REQUERY_CODES if raised else _REQUERY_CODES - {"too_many_studies"}


def _copy_rows(
    plan: LocalPlace, location: LedgerLocation, settings: Settings, metadata: dict[str, str]
) -> None:
    """Copy the plan's ledger to that of a job in a database; the job begins with the last transaction."""
    with closing(Ledger(location)) as ledger:
        with snapshot_of(plan.ledger) as rows:
            ledger.database.write(rows.replace)
        ledger.retry(_requery_codes(rows.metadata, settings))
        ledger.set_metadata(**{**rows.metadata, "settings": settings.model_dump_json(), **metadata})


def _copy_ledger(plan: LocalPlace, folder: LocalPlace, settings: Settings, metadata: dict[str, str]) -> None:
    """Copy the plan's ledger to the job, completely or not at all, even in a crash."""
    part = folder.ledger.with_suffix(".part")
    _delete_database(part)
    os.close(open_own_file(part, os.O_RDWR | os.O_CREAT))
    uri = f"file:{quote(os.fsencode(plan.ledger))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as ours, closing(sqlite3.connect(part)) as copy:
        ours.backup(copy)
    ledger = Ledger(part)
    try:
        _requery(ledger, settings)
        ledger.set_metadata(**metadata)
    finally:
        ledger.close()
    _delete_database(folder.ledger)
    replace_file(part, folder.ledger)


def _delete_database(database: Path) -> None:
    """Delete a SQLite file with its write-ahead log, which would otherwise be applied to the next file."""
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
