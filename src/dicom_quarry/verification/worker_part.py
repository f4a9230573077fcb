"""One worker's part in the comparison of a job's files: it takes some studies, and records what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster.file_check import FileCheck, Part
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.ledger.outages import MAX_OUTAGE
from dicom_quarry.ledger.stored_files import FileTotals
from dicom_quarry.system.shutdown import Stopped
from dicom_quarry.verification.comparison import compare_files
from dicom_quarry.verification.file_records import FileRecords, open_file_records
from dicom_quarry.verification.results import FileResult, sample_of, to_finding, unrecorded_file
from dicom_quarry.verification.unrecorded_files import UnrecordedFiles

#: Seconds between two looks whether the part is still to be compared.
_REPORT_INTERVAL = 1.0


def compare_next_part(
    place: ClusterPlace,
    worker: str,
    should_stop: Callable[[], bool],
    on_end: Callable[[ClusterPlace, FileCheck], object],
) -> bool:
    """Compare the next part of a job's files for a worker; return False if there is none.

    ``on_end`` is called after the last part. A part is given back when ``should_stop`` returns True, and
    whenever it cannot be compared: Stopped is raised, or the error. Raises InputError, StartError and
    LedgerError.
    """
    check = FileCheck(place.cluster, place.job, max_outage=MAX_OUTAGE)
    part = check.take(worker)
    if part is None:
        return False
    try:
        done, results = _Comparison(place, check, part, should_stop).run()
    except BaseException:
        check.give_back(part)
        raise
    if check.end(part, done, map(to_finding, results)):
        on_end(place, check)
    return True


class _Comparison:
    """The comparison of one part."""

    def __init__(
        self, place: ClusterPlace, check: FileCheck, part: Part, should_stop: Callable[[], bool]
    ) -> None:
        self._place = place
        self._check = check
        self._part = part
        self._should_stop = should_stop
        self._done = FileTotals(0, 0)
        self._reported_at = time.monotonic()

    def run(self) -> tuple[FileTotals, list[FileResult]]:
        """Return the number of files that were compared, and those that are not as recorded."""
        with closing(open_file_records(self._place, None)) as records:
            found = list(self._search(records) if self._part.is_search else self._compare(records))
        return self._done, found

    def _compare(self, records: FileRecords) -> Iterator[FileResult]:
        parameters = self._part.parameters
        pages = records.files(after=self._part.after, last=self._part.last)
        quick, sample = parameters["quick"], sample_of(parameters)
        try:
            for batch in compare_files(self._place, pages, quick=quick, sample=sample):
                self._done += batch.totals
                yield from batch.damaged()
                self._report()
        except StartError:
            raise StartError(
                "a process that compares files was killed, perhaps because memory ran out"
            ) from None

    def _search(self, records: FileRecords) -> Iterator[FileResult]:
        """Yield the files in the folder that are not in the record."""
        unrecorded = UnrecordedFiles(self._place.out, self._report)
        for _, page in records.files():
            unrecorded.add_recorded(page)
            self._report()
        unrecorded.add_missing_of(self._check.sorted_findings())
        yield from map(unrecorded_file, unrecorded.find(records))

    def _report(self) -> None:
        """Report the progress once a second; raise Stopped if the part is to be given back."""
        if self._should_stop():
            raise Stopped
        if time.monotonic() - self._reported_at >= _REPORT_INTERVAL:
            self._reported_at = time.monotonic()
            if not self._check.report(self._part, self._done):
                raise Stopped
