"""A verification that the workers of a database do: this process shows how far they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from dicom_quarry.errors import InputError, LedgerError, StartError
from dicom_quarry.jobs.checkpoint_store import own_folder
from dicom_quarry.jobs.cluster.file_check import FileCheck, FileCheckState
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.stored_files import FileTotals
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.verification.checkpoint import MAX_AGE
from dicom_quarry.verification.file_records import open_file_records
from dicom_quarry.verification.results import (
    FileResult,
    VerifyMeter,
    VerifyOptions,
    VerifyProgress,
    VerifySummary,
    make_views,
    sample_of,
    summarize,
    to_result,
)
from dicom_quarry.verification.sampling import Sample

_log = logging.getLogger(__name__)

#: Seconds between two looks at what the workers have done.
_INTERVAL = 0.5

_AWAY = "the database to answer"


class WorkersVerification:
    """A verification by the workers; see :class:`results.OpenVerification`.

    One that they do now is joined, one that was stopped is continued, and the result of one that has ended is
    shown once. Raises StartError while they compare the files in another way. ``ended`` is the result of one
    that has ended: then that is shown, and nothing begun.
    """

    is_with_workers = True
    manifest = None
    may_record = True

    def __init__(
        self,
        folder: JobPlace,
        check: FileCheck,
        options: VerifyOptions,
        *,
        ended: FileCheckState | None = None,
    ) -> None:
        self.folder = folder
        self._check = check
        self._options = options
        self._ended = ended
        self.interrupted_at: float | None = None

    def __enter__(self) -> Self:
        self._state = self._ended or self._find() or self._begin()
        self.sample: Sample | None = sample_of(self._state.parameters)
        self._records = open_file_records(self.folder, None)
        return self

    def __exit__(self, *error: object) -> None:
        self._records.close()

    @property
    def totals(self) -> FileTotals:
        """The files on record."""
        return self._records.totals()

    @property
    def files_done(self) -> int:
        """The number of files that the workers have compared."""
        return self._state.done.files

    @property
    def list_folder(self) -> Path:
        """The folder of the job; where it is not on this computer, a folder of this user."""
        try:
            self.folder.require_folder()
        except InputError:
            return own_folder(self.folder.out)
        return self.folder.out

    @property
    def remark(self) -> str:
        """The workers compare the files, or have done so."""
        label, ended = self.folder.label, self._state.ended
        if ended is None:
            return (
                "The workers of the database compare the files. Ctrl-C lets go of them; to stop them:  "
                f"quarry stop {label}"
            )
        return (
            f"The workers have compared the files, until {ended.astimezone():%Y-%m-%d %H:%M}. To have them "
            "compared again, type the command again"
        )

    def run(
        self, on_finding: Callable[[FileResult], None], on_progress: Callable[[VerifyProgress], None]
    ) -> VerifySummary | None:
        """Show what the workers find until they have ended. A database that is away is waited for.

        Returns None if they were stopped. Raises StartError if another command has started over.
        """
        meter = VerifyMeter(self._records, self._state.done, self._state.parameters["sample_share"])
        last, waiting_for = 0, ""
        while True:
            try:
                last = self._show_findings(last, on_finding)
                if self._state.ended is not None or not self._state.is_active:
                    break
                self._state = self._require_same(self._check.read(), self._state)
                waiting_for = self._find_obstacle()
            except LedgerError as error:
                if waiting_for != _AWAY:
                    _log.warning("%s", error)
                waiting_for = _AWAY
            on_progress(meter.progress(self._state.done, waiting_for))
            time.sleep(_INTERVAL)
        state, is_sample = self._state, self.sample is not None
        if state.ended is None:
            return None
        return summarize(self._records, state.done, state.damaged, state.unrecorded, is_sample=is_sample)

    def damaged_views(self) -> Iterator[DamagedView]:
        """Yield the findings for a report file."""
        return make_views(self._records, self._check.sorted_findings())

    def finish(self) -> None:
        """Note that the result was shown: the next verification starts over."""
        self._check.note_shown(self._state)

    def _find(self) -> FileCheckState | None:
        found = None if self._options.restart else self._check.read()
        return None if found is None else self._join(found)

    def _join(self, found: FileCheckState) -> FileCheckState | None:
        """Join a comparison, or continue one that was stopped; return None if a new one is to begin."""
        options = self._options
        wanted: dict[str, Any] = {"quick": options.quick, "sample_share": options.sample_share}
        if options.seed is not None:
            wanted["seed"] = options.seed
        is_same = {**found.parameters, **wanted} == found.parameters
        if found.ended is None and found.is_active:
            if not is_same:
                raise StartError(
                    f"the workers compare the files of {self.folder.label} in another way just now: wait "
                    "until they have ended, or start over with --restart"
                )
            return found
        is_recent = datetime.now(UTC) - found.moved < timedelta(seconds=MAX_AGE)
        if found.is_shown or not (is_same and is_recent):
            return None
        if found.ended is not None:
            return found
        self.interrupted_at = found.moved.timestamp()
        return self._require_same(self._check.go_on(), found)

    def _begin(self) -> FileCheckState:
        options = self._options
        parameters: dict[str, Any] = {"quick": options.quick, "sample_share": options.sample_share}
        if options.sample_share is not None:
            parameters["seed"] = options.seed or Sample.draw(options.sample_share).seed
        return self._require(self._check.begin(parameters, searches=options.sample_share is None))

    def _require(self, state: FileCheckState | None) -> FileCheckState:
        if state is None:
            raise InputError(f"{self.folder.label} was removed")
        return state

    def _require_same(self, found: FileCheckState | None, before: FileCheckState) -> FileCheckState:
        """Raise StartError for another comparison than before: its result answers another command."""
        state = self._require(found)
        if state.started != before.started:
            raise StartError(
                f"another command has started the comparison of the files of {self.folder.label} over: run "
                "this one again to see how far that is"
            )
        return state

    def _show_findings(self, last: int, on_finding: Callable[[FileResult], None]) -> int:
        """Show the findings after a number; return that of the last one."""
        while found := self._check.findings(after=last):
            for last, finding in found:  # noqa: B007 - the last one is returned
                on_finding(to_result(finding))
        return last

    def _find_obstacle(self) -> str:
        """Return what keeps the workers from comparing, empty while they do."""
        if self._state.parts or self._state.ended is not None:
            return ""
        return self._check.find_obstacle()
