"""A job as an object, and what Python code does with one: status, report, verify, retry, stop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Unpack

from dicom_quarry.api.archive_comparison import refetch
from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.api.checking import ConnectionCheck
from dicom_quarry.api.completion import prune as _prune
from dicom_quarry.api.completion import release as _release
from dicom_quarry.api.extraction import run_to_end, with_file_check
from dicom_quarry.api.jobs import RETRIED_BY_DEFAULT, find_running_job, read_job_status
from dicom_quarry.api.notebook import JobOutput
from dicom_quarry.api.options import (
    RetryOptions,
    StrPath,
    check_bools,
    check_number,
    check_texts,
    make_path,
    make_retry_flags,
)
from dicom_quarry.api.reports import report as _report
from dicom_quarry.api.result import (
    Result,
    list_changed_settings,
    load_job_settings,
    override_settings,
    read_rows,
    read_studies,
)
from dicom_quarry.api.running import find_runner
from dicom_quarry.api.verified_files import Verification
from dicom_quarry.api.verified_files import verify as _verify
from dicom_quarry.completion.prune import PrunedStudy
from dicom_quarry.completion.release import ReleaseResult
from dicom_quarry.errors import InputError, QuarryError
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.place import Holder, JobPlace
from dicom_quarry.jobs.status import JobStatus
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.plurals import format_part

#: Seconds between two looks at a running job.
_POLL_INTERVAL = 0.2


#: Write the reports of a job, and compare its files with its record.
report = clear_errors(_report)
verify = clear_errors(_verify)


class Job(JobOutput):
    """A job, whether it runs, has ended or was interrupted; ``folder`` is its ``to``."""

    def __init__(self, job_folder: JobPlace, *, trust_owner: bool = False, place: Path | None = None) -> None:
        self.folder = job_folder.out
        self._job_folder = job_folder
        self._place = place or self.folder
        self._trust_owner = trust_owner

    def __repr__(self) -> str:
        try:
            status = read_job_status(self._job_folder)
        except QuarryError:
            return f"<Job {self.folder}>"
        counts = status.counts
        done = counts.rows - counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
        return f"<Job {self.folder}: {status.state}, {format_part(done, counts.rows, 'row')} ended>"

    def _job(self) -> JobPlace:
        return self._job_folder

    @clear_errors
    def status(self) -> JobStatus:
        """Read how far the job is; raises LedgerError."""
        return read_job_status(self._job_folder)

    @property
    def is_running(self) -> bool:
        """True while a process works on the job."""
        return self.status().process is not None

    @clear_errors
    def rows(self) -> Iterator[RowView]:
        """Read every row of the table with its present outcome."""
        return read_rows(self._job_folder)

    @clear_errors
    def studies(self) -> Iterator[StudyView]:
        """Read every study with its present outcome."""
        return read_studies(self._job_folder)

    def report(self, *, xlsx: bool = False) -> Result:
        """Write the reports, also while the job runs; see :func:`report`."""
        return report(self._place, xlsx=xlsx)

    def verify(self, *, quick: bool = False, progress: bool = False) -> Verification:
        """Compare every recorded file with the disk; see :func:`verify`."""
        return verify(self._place, quick=quick, progress=progress)

    def retry(
        self,
        outcomes: Collection[str] = (),
        *,
        damaged: bool = False,
        changed: bool = False,
        queue: bool = False,
        observer: JobObserver | None = None,
        progress: bool = False,
        **options: Unpack[RetryOptions],
    ) -> Result:
        """Try again the rows that are not complete; see :func:`retry`."""
        return retry(
            self._place,
            outcomes,
            damaged=damaged,
            changed=changed,
            queue=queue,
            trust_owner=self._trust_owner,
            observer=observer,
            progress=progress,
            **options,
        )

    def resume(
        self, *, queue: bool = False, observer: JobObserver | None = None, progress: bool = False
    ) -> Result:
        """Continue a job that was stopped; see :func:`resume`."""
        return resume(
            self._place, queue=queue, trust_owner=self._trust_owner, observer=observer, progress=progress
        )

    def release(self, study_uids: Collection[str] = (), *, delete: bool = False) -> list[ReleaseResult]:
        """Release complete studies; see :func:`release`."""
        return release(self._place, study_uids, delete=delete, trust_owner=self._trust_owner)

    @clear_errors
    def prune(self, *, delete: bool = False) -> list[PrunedStudy]:
        """Move away the studies that no row requests any more; see :func:`prune`."""
        return list(_prune(self._place, delete=delete, trust_owner=self._trust_owner))

    @clear_errors
    def stop(self) -> bool:
        """Have the job finish the studies in transfer and end; returns False if it does not run.

        Returns at once: ``wait`` waits for the end. The job may run in this process or in another one.
        """
        return self._stop(cancel=False)

    @clear_errors
    def cancel(self) -> bool:
        """Cancel the studies in transfer and end the job; returns False if it does not run.

        What is stored stays, and the job can be continued. Returns at once: ``wait`` waits for the end.
        """
        return self._stop(cancel=True)

    @clear_errors
    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until no process works on the job, ``timeout`` seconds at most; returns its status then."""
        check_number("timeout", timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            status = read_job_status(self._job_folder)
            is_late = deadline is not None and time.monotonic() >= deadline
            if status.process is None or is_late:
                return status
            time.sleep(_POLL_INTERVAL)

    def _stop(self, *, cancel: bool) -> bool:
        runner = find_runner(self.folder)
        if runner is not None:
            runner.queries.stop()
            if cancel:
                runner.queries.stop()
            return True
        running = find_running_job(self._place)
        if running is None or running.holder == Holder(os.getpid()):
            return False  # in this process: the run ends, and its runner has been removed already
        running.stop(cancel=cancel)
        return True


@clear_errors
def open(folder: StrPath, *, trust_owner: bool = False) -> Job:
    """Open the job in a folder, the ``to`` of an extraction, or ``"job:NAME"`` in a database.

    Raises InputError if there is none.

    ``trust_owner`` lets ``retry`` and ``release`` work in the folder of another user.
    """
    place = make_path(folder, "folder")
    return Job(open_existing(place), trust_owner=trust_owner, place=place)


@clear_errors
def status(folder: StrPath) -> JobStatus:
    """Read how far the job in a folder is; raises InputError if there is none, and LedgerError."""
    return read_job_status(make_path(folder, "folder"))


@clear_errors
def resume(
    folder: StrPath,
    *,
    queue: bool = False,
    trust_owner: bool = False,
    observer: JobObserver | None = None,
    progress: bool = False,
) -> Result:
    """Continue a job that was stopped, with the options and the rows of its record.

    To change an option or the table, call ``extract`` again. Blocks until the job has ended. Raises
    InputError, StartError or LedgerError.
    """
    check_bools(queue=queue, progress=progress)
    settings = load_job_settings(make_path(folder, "folder"), trust_owner=trust_owner)
    work = with_file_check(lambda runner: runner.resume())
    return run_to_end(settings, work, observer, progress=progress, queue=queue, continues=True)


@clear_errors
def retry(
    folder: StrPath,
    outcomes: Collection[str] = (),
    *,
    damaged: bool = False,
    changed: bool = False,
    queue: bool = False,
    trust_owner: bool = False,
    observer: JobObserver | None = None,
    progress: bool = False,
    **options: Unpack[RetryOptions],
) -> Result:
    """Try again the rows that are not complete, or those with these ``outcomes`` alone.

    ``damaged``: instead, files that a verification found damaged; ``changed``: new instances that a
    comparison with the archive found. ``options`` are those that the advice of an outcome names, such as
    ``max_studies=50``. Blocks until the job has ended. Raises InputError, StartError or LedgerError.
    """
    out = make_path(folder, "folder")
    names = [outcomes] if isinstance(outcomes, str) else outcomes
    if not isinstance(names, Collection):
        raise InputError(f"outcomes: write a list such as ['not_found'] (it is {outcomes!r})")
    check_bools(damaged=damaged, changed=changed, queue=queue, progress=progress)
    statuses = frozenset(_parse_outcome(one) for one in names) or RETRIED_BY_DEFAULT
    if names and (damaged or changed):
        raise InputError("outcomes does not go with damaged or changed: leave one of them out")
    given = make_retry_flags(options)
    settings = override_settings(load_job_settings(out, trust_owner=trust_owner), given)
    recorded = list_changed_settings(given)
    work: Callable[[Runner], JobResult] = (
        partial(refetch, out, damaged=damaged, changed=changed)
        if damaged or changed
        else lambda runner: runner.retry(statuses, recorded)
    )
    return run_to_end(settings, work, observer, progress=progress, queue=queue, continues=True)


def _parse_outcome(name: str) -> OutcomeStatus:
    try:
        return OutcomeStatus(name)
    except ValueError:
        known = ", ".join(sorted(OutcomeStatus))
        raise InputError(f"'{name}' is not an outcome. Outcomes are: {known}") from None


@clear_errors
def release(
    folder: StrPath, study_uids: Collection[str] = (), *, delete: bool = False, trust_owner: bool = False
) -> list[ReleaseResult]:
    """Release complete studies whose files are elsewhere; with ``delete`` remove files that are still here.

    ``study_uids`` are the studies; without them all that are complete.
    """
    check_bools(delete=delete)
    uids = [study_uids] if isinstance(study_uids, str) else study_uids
    return list(_release(make_path(folder, "folder"), uids, delete=delete, trust_owner=trust_owner))


@clear_errors
def prune(folder: StrPath, *, delete: bool = False, trust_owner: bool = False) -> list[PrunedStudy]:
    """Move the files of studies that no row requests any more to .quarry/pruned; ``delete`` deletes them."""
    return list(_prune(make_path(folder, "folder"), delete=delete, trust_owner=trust_owner))


@clear_errors
def check(
    archive: str | None = None,
    *,
    receiver: str | None = None,
    config: StrPath | None = None,
    accession: str = "",
    patient_id: str = "",
    probe: bool = False,
    trust_owner: bool = False,
) -> ConnectionCheck:
    """Check the connection to an archive; returns its ``steps``, and ``failed`` if one of them did.

    With ``accession`` that study is queried and sent here for a test; ``probe`` looks for a limit on the
    number of results. ``access_request()`` of the result is the letter to the PACS team. Raises ConfigError,
    and StartError outside the time window.
    """
    check_texts(accession=accession, patient_id=patient_id)
    path = None if config is None else make_path(config, "config")
    connection = ConnectionCheck(path, archive=archive, local=receiver, trust_owner=trust_owner)
    for _ in connection.run(accession=accession, patient_id=patient_id, probe_cap=probe):
        pass  # each step is kept in the result
    return connection
