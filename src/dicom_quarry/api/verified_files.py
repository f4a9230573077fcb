"""The comparison of a job's files with its record, for Python code: each result, an output, a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.api.options import StrPath, check_bools, check_number, make_path
from dicom_quarry.api.outputs import MAX_SHOWN_ROWS, show_output
from dicom_quarry.api.progress import open_progress
from dicom_quarry.api.verification import choose_record, format_files_progress
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.arrow_table import ArrowTable, Column, ColumnType
from dicom_quarry.reporting.html.notebook import ShownRows, VerificationView, verification_output
from dicom_quarry.reporting.job_tables import rows_table, studies_table
from dicom_quarry.verification.results import FileResult, VerifyOptions, VerifyProgress
from dicom_quarry.verification.verifier import verify as _verify

#: Most problems that a verification keeps; ``quarry verify`` lists all of them in damaged.csv.
MAX_PROBLEMS = 10_000

_FILE_COLUMNS = (
    Column("path"),
    Column("study_uid"),
    Column("series_uid"),
    Column("sop_uid"),
    Column("bytes", ColumnType.INTEGER),
    Column("sha256"),
    Column("code"),
    Column("problem"),
)


class Verification(Iterator[FileResult]):
    """The comparison of the recorded files with the disk: files are compared while it is iterated.

    An output, ``run`` and ``to_dict`` compare what is left. Iterating again compares again. ``files`` and
    ``size`` are those compared so far, ``problems`` the results of files that are damaged or missing, at most
    10,000 of them.
    """

    def __init__(self, folder: JobPlace, options: VerifyOptions, *, progress: bool = False) -> None:
        self._folder = folder
        self._options = options
        self._progress = progress
        self._pass: Iterator[FileResult] | None = None
        self._reset()

    def _reset(self) -> None:
        self.files = self.size = 0
        self.problems: list[FileResult] = []
        self.is_finished = False
        self._by_code: Counter[str] = Counter()

    @property
    def damaged(self) -> int:
        """The number of files so far that are damaged or missing."""
        return self._by_code.total()

    def __iter__(self) -> Self:
        if self.is_finished:
            self._pass = None
        return self

    @clear_errors
    def __next__(self) -> FileResult:
        if self._pass is None:
            self._reset()
            self._pass = self._compare()
        return next(self._pass)

    def __repr__(self) -> str:
        state = "" if self.is_finished else " so far"
        return (
            f"<Verification of {self._folder.out}: {format_count(self.files, 'file')} compared{state}, "
            f"{self.damaged:,} damaged or missing>"
        )

    def run(self) -> Self:
        """Compare the files that were not compared yet, and return this verification."""
        while not self.is_finished and next(self, None) is not None:
            pass
        return self

    def to_dict(self) -> dict[str, object]:
        """Return the numbers, as ``json`` can write them; compares the files that are left."""
        self.run()
        return {
            "files": self.files,
            "bytes": self.size,
            "damaged": self.damaged,
            "damaged_by_code": dict(self._by_code),
            "quick": self._options.quick,
        }

    @clear_errors
    def rows_table(self) -> ArrowTable:
        """Return the rows of the job, for a DataFrame; raises LedgerError for a folder without its record."""
        return rows_table(self._folder)

    @clear_errors
    def studies_table(self) -> ArrowTable:
        """Return the studies of the job, for a DataFrame."""
        return studies_table(self._folder)

    def instances_table(self) -> ArrowTable:
        """Return every file with its result, for a DataFrame; each use of the table compares the files."""

        def read() -> Iterator[tuple[object, ...]]:
            for one in Verification(self._folder, self._options):
                file = one.file
                uids = (file.study_uid, file.series_uid, file.sop_uid)
                yield file.path, *uids, file.size, file.digest.hex(), one.code, one.problem

        return ArrowTable("Files", _FILE_COLUMNS, read)

    def show(self, *, identifiers: bool = False) -> None:
        """Show the result: as an output of the notebook, or else as text; compares the files that are left.

        ``identifiers`` adds the paths of the first files that are damaged or missing.
        """
        view = self._view()
        shown = None
        if identifiers:
            found = [(one.code, one.problem, one.file.path) for one in self.problems[:MAX_SHOWN_ROWS]]
            shown = ShownRows(("Code", "Problem", "File"), found, self.damaged, "damaged file")
        show_output(verification_output(view, shown=shown), [view.verdict], shown)

    def _repr_html_(self) -> str:
        return verification_output(self._view())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 - IPython's protocol
        # As in the HTML of the same output.
        printer.text(repr(self.run()))

    def _view(self) -> VerificationView:
        self.run()
        return VerificationView(
            self.files, self.size, self._by_code.most_common(), self._options.quick, self.is_finished
        )

    def _compare(self) -> Iterator[FileResult]:
        options = self._options
        try:
            with open_progress("Verification", None, progress=self._progress) as (_, display):

                def show(progress: VerifyProgress) -> None:
                    if display is not None:
                        done, total = progress.done, progress.total
                        display.update(done.files, total.files, [format_files_progress(progress)])

                results = _verify(
                    self._folder,
                    quick=options.quick,
                    threads=options.threads,
                    manifest=options.manifest,
                    on_progress=show,
                )
                for result in results:
                    self._count(result)
                    yield result
                self.is_finished = True
                if display is not None:
                    display.finish(self.files, self.files, self._view().verdict)
        finally:
            if not self.is_finished:
                self._pass = None  # interrupted: the next use begins again

    def _count(self, result: FileResult) -> None:
        self.files += 1
        self.size += result.file.size
        if result.problem:
            self._by_code[result.code] += 1
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(result)


def verify(
    folder: StrPath,
    *,
    quick: bool = False,
    threads: int | None = None,
    manifest: StrPath | None = None,
    progress: bool = False,
) -> Verification:
    """Compare every recorded file with the disk, or only its size if ``quick``.

    The record is that of the job; without one, or with ``manifest``, it is the manifest of the folder. The
    files are compared while the verification is iterated or shown; ``progress`` shows how far it is.
    """
    check_bools(quick=quick, progress=progress)
    check_number("threads", threads)
    given = None if manifest is None else make_path(manifest, "manifest")
    job, chosen = choose_record(make_path(folder, "folder"), given)
    return Verification(job, VerifyOptions(quick=quick, threads=threads, manifest=chosen), progress=progress)
