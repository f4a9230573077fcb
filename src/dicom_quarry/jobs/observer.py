"""Who is told of the course of a job, or of a plan."""

from __future__ import annotations

from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.progress import Asking, Snapshot
from dicom_quarry.ledger.cohort_rows import CohortChange


class Listener:
    """Told of what is going on; overrides what it wants to know."""

    def cohort(self, mapping: tuple[tuple[str, str], ...], rows: int, notes: tuple[str, ...]) -> None:
        """The table was read: which of its headers became which DICOM keywords."""

    def updated(self, change: CohortChange) -> None:
        """A newer table was taken."""

    def queued(self, behind: str) -> None:
        """The job waits for its receiver's port; several times a second."""

    def under_way(self, folder: JobFolder) -> None:
        """The job goes on by itself: archives and receiver were heard, or it queues; may be told again."""

    def tick(self, snapshot: Snapshot) -> None:
        """The job as it stands, several times a second."""

    def asking(self, asking: Asking) -> None:
        """A plan, or another look at an archive, as it stands; several times a second."""

    def said(self, message: str) -> None:
        """Something that a person may want to know; rows by number, no identifiers."""
