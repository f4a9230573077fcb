"""Who is told of the course of a job, or of a plan."""

from __future__ import annotations

from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.progress import QueryProgress, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange


class JobObserver:
    """Told of what is going on; overrides what it wants to know."""

    def on_cohort_read(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read: which of its headers became which DICOM keywords."""

    def on_cohort_updated(self, change: CohortChange) -> None:
        """A newer table was taken."""

    def on_queued(self, waiting_for: str) -> None:
        """The job waits for its receiver's port; several times a second."""

    def on_started(self, folder: JobFolder) -> None:
        """The job goes on by itself: archives and receiver were heard, or it queues; may be told again."""

    def on_progress(self, snapshot: Snapshot) -> None:
        """The job as it stands, several times a second."""

    def on_query_progress(self, progress: QueryProgress) -> None:
        """A plan, or another look at an archive, as it stands; several times a second."""

    def on_message(self, message: str) -> None:
        """Something that a person may want to know; rows by number, no identifiers."""
