"""Open a job by its place: the one function that resolves what a user names a job by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.folder import JOB_FILE, logging_to, require_own_state
from dicom_quarry.jobs.local_place import create_local, open_local
from dicom_quarry.jobs.place import JobPlace, do_nothing
from dicom_quarry.jobs.registry import register
from dicom_quarry.ledger.ledger import Ledger

if TYPE_CHECKING:
    from dicom_quarry.config.settings import Settings


#: The beginning of a job's name, where a folder may be given, too.
PREFIX = "job:"


def open_existing(place: Path, *, check_owner: bool = False, trust_owner: bool = False) -> JobPlace:
    """Return the job in the folder ``place``, or the one that ``job:NAME`` names; raise InputError if none.

    A path that exists is that path. ``check_owner``: the job will be written to, so that NotOwned is raised
    for a folder of another user, unless ``trust_owner``.
    """
    is_name = str(place).startswith(PREFIX) and not place.exists()
    if not is_name and not (place / ".quarry" / JOB_FILE).exists():
        return open_local(place, check_owner=check_owner, trust_owner=trust_owner)
    # Imported here: a job in a folder needs neither psycopg nor, to be shown, settings.
    from dicom_quarry.jobs.cluster.opening import open_by_folder, open_named

    found = open_named(str(place).removeprefix(PREFIX)) if is_name else open_by_folder(place)
    if check_owner:
        found.require_folder()
        require_own_state(found, trust_owner=trust_owner)
    return found


def find_folder(place: Path) -> Path:
    """Return the folder of the images of ``job:NAME``; any other path is that folder."""
    return open_existing(place).out if str(place).startswith(PREFIX) and not place.exists() else place


def open_or_create(settings: Settings) -> JobPlace:
    """Create the place of a job, or return that of an earlier run; raise InputError and NotOwned."""
    if settings.job is not None:
        from dicom_quarry.jobs.cluster.opening import create_named

        return create_named(settings)
    if (settings.to / ".quarry" / JOB_FILE).exists():
        raise InputError(
            f"{settings.to} is the folder of a job in a database: give its name with --job, or another folder"
        )
    return create_local(settings.to, settings.state, trust_owner=settings.trust_owner)


@contextmanager
def open_for_run(
    place: JobPlace,
    *,
    prepare: Callable[[], object] = do_nothing,
    on_stop: Callable[[], object] = do_nothing,
    is_plan: bool = False,
) -> Iterator[Ledger]:
    """Open a job's record for one run: lock the job, log to its folder, register it, open the ledger.

    ``prepare`` runs under the lock, before the ledger is opened, and may replace the ledger. ``on_stop`` is
    called for a request to stop, see :meth:`JobPlace.lock`. A plan is not registered. Raises StartError while
    another process has the job, and LedgerError.
    """
    with place.lock(runs_job=not is_plan, on_stop=on_stop), logging_to(place.log):
        if not is_plan:
            register(place.out)
        prepare()
        with closing(Ledger(place.ledger)) as ledger:
            place.prepare_record(ledger)
            yield ledger
