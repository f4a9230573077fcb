"""A job that is open for reading: the one way to its record, its status and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dicom_quarry.jobs.folder import MISMATCH_DIR
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.jobs.status import JobStatus, read_status
from dicom_quarry.ledger.history import HistoryReader

if TYPE_CHECKING:
    # What shows a job needs no settings, which take a tenth of a second to load.
    from dicom_quarry.config.settings import Settings
    from dicom_quarry.ledger.reader import PathFunction


class OpenedJob:
    """A job that is open for reading, also while another process runs it; use it as a context manager.

    ``reader`` reads its record: rows, studies, instances, counts, activity and histories.
    """

    def __init__(self, folder: JobPlace) -> None:
        self.folder = folder
        self.reader = HistoryReader(folder.ledger, MISMATCH_DIR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the record."""
        self.reader.close()

    @property
    def out(self) -> Path:
        """The output folder: the root of the DICOM tree, with the reports."""
        return self.folder.out

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The facts about the job, by name, as they were when first read."""
        return self.reader.metadata()

    @property
    def settings(self) -> Settings:
        """The settings of the last run; raises LedgerError if another version wrote them."""
        from dicom_quarry.config.settings import parse_recorded_settings

        return parse_recorded_settings(self.metadata)

    def status(self) -> JobStatus:
        """Read the status of the job now."""
        return read_status(self.folder, self.reader)

    def path_function(self) -> PathFunction:
        """Return the function that gives the path of an instance."""
        from dicom_quarry.jobs.instance_paths import load_path_function

        return load_path_function(self.reader)


def open_job(place: Path | JobPlace) -> OpenedJob:
    """Open the job of a place, or in the output folder ``place``, for reading.

    Raises InputError if there is none, and LedgerError if its record cannot be read.
    """
    return OpenedJob(place if isinstance(place, JobPlace) else open_existing(place))
