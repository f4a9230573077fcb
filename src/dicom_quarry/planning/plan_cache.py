"""Where plans are kept: ledgers whose rows were asked about, found again by what they depend on.

A plan has the ledger of a job, so that the job may begin with its answers. They are found by a key: a cohort
that has changed, another archive or another rule makes another plan.
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
from dicom_quarry.jobs.folder import JobFolder, held, refuse_network
from dicom_quarry.jobs.registry import state_home
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Reader, was_begun
from dicom_quarry.version import __version__

_log = logging.getLogger(__name__)

#: Settings that do not change what an archive answers, or what is made of it. A new setting changes it until
#: it stands here: then plans are asked for again without need, and never used wrongly.
_INDIFFERENT = {
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
_RAISED = "max_studies"
#: What of an archive's profile does.
_ASKED = {"name", "address", "dicomweb", "model", "character_set", "result_cap"}

#: Rows to ask about again: those that the archive could not answer, and those that a raised limit allows.
_AGAIN = frozenset({"query_failed", "too_many_studies"})

#: After so long nobody comes back to a plan.
_KEPT = timedelta(days=30)


def place(cohort: CohortFile, settings: Settings, excluded: str = "") -> JobFolder:
    """The folder of the plan of a cohort; it need not exist.

    ``excluded`` is the digest of what must not be taken.
    """
    asked = {
        "version": __version__,
        "cohort": cohort.digest,
        "archives": [one.model_dump(mode="json", include=_ASKED) for one in settings.archives],
        "rules": settings.model_dump(mode="json", exclude={*_INDIFFERENT, _RAISED}),
        # By what they name: a list that has grown makes another plan, whose answers heed it.
        **({"excluded": excluded} if excluded else {}),
    }
    text = json.dumps(asked, sort_keys=True)
    path = _plans() / hashlib.sha256(text.encode()).hexdigest()[:32]
    return JobFolder(path, path)


@contextmanager
def opened(
    cohort: CohortFile, settings: Settings, *, detailed: bool, excluded: str = ""
) -> Iterator[tuple[JobFolder, Ledger, datetime | None]]:
    """The plan's folder and ledger, with the rows in it, and since when it has answers, if it was begun.

    One whose answers are too old, or lack the details, is begun anew. Raises InputError where the record
    cannot be kept, and StartError while another process makes this plan.
    """
    folder = place(cohort, settings, excluded)
    folder.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_network(folder.state, "with the variable XDG_STATE_HOME")
    with held(folder, watched=False):
        since = _usable(folder, settings, detailed=detailed)
        if since is None:
            _unlink(folder.ledger)
        ledger = Ledger(folder.ledger)
        try:
            if since is None:
                record.begin(ledger, cohort, settings)
                ledger.note(detailed="yes" if detailed else "")
            else:
                _ask_again(ledger, settings)
            yield folder, ledger, since
        finally:
            ledger.close()


def adopt(folder: JobFolder, cohort: CohortFile, settings: Settings, excluded: str = "") -> datetime | None:
    """Let a job that has not begun begin with the answers of its plan; since when these are, None if not.

    A plan spares questions, so nothing about it can keep a job from beginning.
    """
    plan = place(cohort, settings, excluded)
    try:
        if not plan.ledger.is_file() or (folder.ledger.is_file() and was_begun(folder.ledger)):
            return None
        with held(plan, watched=False):
            since = _usable(plan, settings, detailed=False)
            if since is not None:
                facts = {**record.first_facts(cohort, settings), "planned": since.isoformat()}
                _take(plan, folder, settings, facts)
            return since
    except (StartError, LedgerError, OSError, sqlite3.Error) as error:
        _log.info("the plan of this cohort is not used: %s", error)
        return None


def sweep(now: datetime) -> None:
    """Remove plans that nobody comes back to."""
    for path in _plans().glob("?" * 32):
        folder = JobFolder(path, path)
        with suppress(OSError, StartError):
            if now.timestamp() - folder.ledger.stat().st_mtime < _KEPT.total_seconds():
                continue
            with held(folder, watched=False):
                _unlink(folder.ledger)
                folder.log.unlink(missing_ok=True)
                (path / "lock").unlink()
                # Not if there is anything else in it: that is somebody else's.
                path.rmdir()


def spoken(since: datetime, now: datetime) -> str:
    """When a plan was made, by the clock on the wall."""
    there, here = since.astimezone(), now.astimezone()
    return f"{there:%H:%M}" if there.date() == here.date() else f"{there:%Y-%m-%d %H:%M}"


def _plans() -> Path:
    return state_home() / "plans"


def _usable(plan: JobFolder, settings: Settings, *, detailed: bool) -> datetime | None:
    """Since when a plan has answers, if it can be gone on with; None if there is none, or it cannot."""
    try:
        if not plan.ledger.is_file() or not was_begun(plan.ledger):
            return None
        with closing(Reader(plan.ledger)) as reader:
            facts = reader.facts()
        since = datetime.fromisoformat(facts["created"])
    except (LedgerError, KeyError, ValueError):
        return None  # begun by a crash, damaged, or of another version: it is asked for again
    if (detailed and not facts.get("detailed")) or _allowed(facts) > settings.max_studies:
        return None
    age = (datetime.now(UTC) - since).total_seconds()
    return since if 0 <= age < settings.plan_age else None


def _allowed(facts: Mapping[str, str]) -> int:
    """How many studies a row might mean when it was asked about."""
    return int(json.loads(facts["settings"])[_RAISED])


def _ask_again(ledger: Ledger, settings: Settings) -> None:
    raised = settings.max_studies > _allowed(ledger.facts())
    ledger.retry(_AGAIN if raised else _AGAIN - {"too_many_studies"})
    ledger.note(settings=settings.model_dump_json())


def _take(plan: JobFolder, folder: JobFolder, settings: Settings, facts: dict[str, str]) -> None:
    """Copy the plan's ledger, as the job's; whole or not at all, as a crash may come at any moment."""
    part = folder.ledger.with_suffix(".part")
    _unlink(part)
    part.touch(mode=0o600)
    source = f"file:{quote(str(plan.ledger))}?mode=ro"
    with closing(sqlite3.connect(source, uri=True)) as ours, closing(sqlite3.connect(part)) as copy:
        ours.backup(copy)
    ledger = Ledger(part)
    try:
        _ask_again(ledger, settings)
        ledger.note(**facts)
    finally:
        ledger.close()
    _unlink(folder.ledger)
    part.replace(folder.ledger)
    handle = os.open(folder.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlink(database: Path) -> None:
    """Remove a SQLite file, with what belongs to it: a log left behind would be taken for the next one's."""
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
