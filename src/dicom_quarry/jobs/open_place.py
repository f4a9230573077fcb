"""Open a job by its place: the one function that resolves what a user names a job by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dicom_quarry.jobs.folder import logging_to
from dicom_quarry.jobs.local_place import create_local, open_local
from dicom_quarry.jobs.place import JobPlace, do_nothing
from dicom_quarry.jobs.registry import register
from dicom_quarry.ledger.ledger import Ledger


def open_existing(place: Path, *, check_owner: bool = False, trust_owner: bool = False) -> JobPlace:
    """Return the place of the job in the output folder ``place``; raise InputError if there is none.

    ``check_owner``: the job will be written to, so that NotOwned is raised for a folder of another user,
    unless ``trust_owner``.
    """
    return open_local(place, check_owner=check_owner, trust_owner=trust_owner)


def open_or_create(out: Path, state: Path | None, *, trust_owner: bool = False) -> JobPlace:
    """Create the place of a job, or return that of an earlier run; see :func:`create_local`."""
    return create_local(out, state, trust_owner=trust_owner)


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
