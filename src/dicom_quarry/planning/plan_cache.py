"""Where plans are kept: ledgers whose rows were asked about, found again by what they depend on.

A plan has the ledger of a job, so that the job may begin with its answers. They are found by a key: a cohort
that has changed, another archive or another rule makes another plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
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
from dicom_quarry.jobs.folder import JobFolder, job_lock, reject_network_file_system
from dicom_quarry.jobs.registry import state_home
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.system.atomic_file import replace_file
from dicom_quarry.version import __version__

_log = logging.getLogger(__name__)

#: Settings that do not change what an archive answers, or what is made of it. A new setting changes it until
#: it stands here: then plans are asked for again without need, and never used wrongly.
_IRRELEVANT_SETTINGS = {
    "archives",
    "to",
    "local",
    "state",
    "file_mode",
    "group",
    "tls",
    "filepath",
    "parallel",
    "accept_mismatch",
    "exclude",
    "protocol",
    "skip_bad_rows",
    "keep_free",
    "give_up_after",
    "plan_age",
    "notify",
    "on_complete",
    "on_complete_parallel",
    "on_complete_limit",
    "on_complete_patience",
}
#: May be raised when the plan was looked at (``extract --yes``): then the rows that had too many are judged
#: again. Lowered, it makes another plan.
_RAISABLE_SETTING = "max_studies"
#: What of an archive's profile does.
_RELEVANT_PROFILE_FIELDS = {"name", "address", "dicomweb", "model", "character_set", "result_cap"}

#: Rows to ask about again: those that the archive could not answer, and those that a raised limit allows.
_REQUERY_CODES = frozenset({"query_failed", "too_many_studies"})

#: After so long nobody comes back to a plan.
_MAX_AGE = timedelta(days=30)


def plan_folder(cohort: CohortFile, settings: Settings, exclusion_digest: str = "") -> JobFolder:
    """The folder of the plan of a cohort; it need not exist.

    ``excluded`` is the digest of what must not be taken.
    """
    key = {
        "version": __version__,
        "cohort": cohort.digest,
        "archives": [
            one.model_dump(mode="json", include=_RELEVANT_PROFILE_FIELDS) for one in settings.archives
        ],
        "rules": settings.model_dump(mode="json", exclude={*_IRRELEVANT_SETTINGS, _RAISABLE_SETTING}),
        # By what they name: a list that has grown makes another plan, whose answers heed it.
        **({"excluded": exclusion_digest} if exclusion_digest else {}),
    }
    text = json.dumps(key, sort_keys=True)
    path = _plans_root() / hashlib.sha256(text.encode()).hexdigest()[:32]
    return JobFolder(path, path)


@contextmanager
def open_plan(
    cohort: CohortFile, settings: Settings, *, detailed: bool, exclusion_digest: str = ""
) -> Iterator[tuple[JobFolder, Ledger, datetime | None]]:
    """The plan's folder and ledger, with the rows in it, and since when it has answers, if it was begun.

    One whose answers are too old, or lack the details, is begun anew. Raises InputError where the record
    cannot be kept, and StartError while another process makes this plan.
    """
    folder = plan_folder(cohort, settings, exclusion_digest)
    folder.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    reject_network_file_system(folder.state, "with the variable XDG_STATE_HOME")
    with job_lock(folder, runs_job=False):
        since = _usable_since(folder, settings, detailed=detailed)
        if since is None:
            _delete_database(folder.ledger)
        ledger = Ledger(folder.ledger)
        try:
            if since is None:
                record.record_cohort(ledger, cohort, settings)
                ledger.set_metadata(detailed="yes" if detailed else "")
            else:
                _requery(ledger, settings)
            yield folder, ledger, since
        finally:
            ledger.close()


def reuse(
    folder: JobFolder, cohort: CohortFile, settings: Settings, exclusion_digest: str = ""
) -> datetime | None:
    """Let a job that has not begun begin with the answers of its plan; since when these are, None if not.

    A plan spares questions, so nothing about it can keep a job from beginning.
    """
    plan = plan_folder(cohort, settings, exclusion_digest)
    try:
        if not plan.ledger.is_file() or (folder.ledger.is_file() and has_job(folder.ledger)):
            return None
        with job_lock(plan, runs_job=False):
            since = _usable_since(plan, settings, detailed=False)
            if since is not None:
                metadata = {**record.build_initial_metadata(cohort, settings), "planned": since.isoformat()}
                _copy_ledger(plan, folder, settings, metadata)
            return since
    except (StartError, LedgerError, OSError, sqlite3.Error) as error:
        _log.info("the plan of this cohort is not used: %s", error)
        return None


def delete_expired(now: datetime) -> None:
    """Remove plans that nobody comes back to."""
    for path in _plans_root().glob("?" * 32):
        folder = JobFolder(path, path)
        with suppress(OSError, StartError):
            if now.timestamp() - folder.ledger.stat().st_mtime < _MAX_AGE.total_seconds():
                continue
            with job_lock(folder, runs_job=False):
                _delete_database(folder.ledger)
                folder.log.unlink(missing_ok=True)
                (path / "lock").unlink()
                # Not if there is anything else in it: that is somebody else's.
                path.rmdir()


def format_plan_time(since: datetime, now: datetime) -> str:
    """When a plan was made, by the clock on the wall."""
    local_since, local_now = since.astimezone(), now.astimezone()
    return (
        f"{local_since:%H:%M}" if local_since.date() == local_now.date() else f"{local_since:%Y-%m-%d %H:%M}"
    )


def _plans_root() -> Path:
    return state_home() / "plans"


def _usable_since(plan: JobFolder, settings: Settings, *, detailed: bool) -> datetime | None:
    """Since when a plan has answers, if it can be gone on with; None if there is none, or it cannot."""
    try:
        if not plan.ledger.is_file() or not has_job(plan.ledger):
            return None
        with closing(LedgerReader(plan.ledger)) as reader:
            metadata = reader.metadata()
        since = datetime.fromisoformat(metadata["created"])
    except (LedgerError, KeyError, ValueError):
        return None  # begun by a crash, damaged, or of another version: it is asked for again
    if (detailed and not metadata.get("detailed")) or _study_limit(metadata) > settings.max_studies:
        return None
    age = (datetime.now(UTC) - since).total_seconds()
    return since if 0 <= age < settings.plan_age else None


def _study_limit(metadata: Mapping[str, str]) -> int:
    """How many studies a row might mean when it was asked about."""
    return int(json.loads(metadata["settings"])[_RAISABLE_SETTING])


def _requery(ledger: Ledger, settings: Settings) -> None:
    raised = settings.max_studies > _study_limit(ledger.metadata())
    ledger.retry(_REQUERY_CODES if raised else _REQUERY_CODES - {"too_many_studies"})
    ledger.set_metadata(settings=settings.model_dump_json())


def _copy_ledger(plan: JobFolder, folder: JobFolder, settings: Settings, metadata: dict[str, str]) -> None:
    """Copy the plan's ledger, as the job's; whole or not at all, as a crash may come at any moment."""
    part = folder.ledger.with_suffix(".part")
    _delete_database(part)
    part.touch(mode=0o600)
    uri = f"file:{quote(str(plan.ledger))}?mode=ro"
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
    """Remove a SQLite file, with what belongs to it: a log left behind would be taken for the next one's."""
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
