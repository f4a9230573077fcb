"""What the ledger tells to those who only read it: the report, ``status`` and the notebook."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from dicom_quarry.model import InstanceRef, Outcome, Study


@dataclass(frozen=True, slots=True)
class RowView:
    """A row of the user's table, with what became of it. Counts and bytes are over all of its studies."""

    row: int
    line: int
    cells: tuple[str, ...]
    outcome: Outcome
    same_as_row: int | None
    studies_found: int
    studies_complete: int
    instances_expected: int
    instances_stored: int
    size: int
    proved_at: datetime | None
    study_uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StudyView:
    """A task, with the rows that asked for it; ``folder`` is relative to the output folder.

    ``hand_over`` is waiting, done or failed where a command is run for complete studies: last tried at
    ``hand_over_at``, and failed as in ``hand_over_said``. ``released_at``: its data went elsewhere.
    """

    rows: tuple[int, ...]
    study: Study
    archive: str
    outcome: Outcome
    expected: int | None
    stored: int
    size: int
    folder: str
    attempts: int
    on_complete_state: str = ""
    on_complete_error: str = ""
    on_complete_at: datetime | None = None
    released_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class InstanceView:
    """A stored instance; ``path`` is relative to the output folder. ``released``: it went elsewhere."""

    path: PurePosixPath
    ref: InstanceRef
    transfer_syntax: str
    size: int
    digest: bytes
    released: bool = False


@dataclass(frozen=True, slots=True)
class MissingView:
    """An instance that the archive lists and that is not here, with the rows that asked for its study."""

    rows: tuple[int, ...]
    ref: InstanceRef


@dataclass(frozen=True, slots=True)
class DamagedView:
    """A file that is not as it was recorded, or (without UIDs and rows) one that nobody recorded.

    ``digest`` is the recorded SHA-256 in hexadecimal, ``code`` a stable word for ``problem``.
    """

    rows: tuple[int, ...]
    path: str
    study_uid: str
    series_uid: str
    sop_uid: str
    code: str
    problem: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class ChangeView:
    """How the archive's list of a complete study differs from what was proved; UIDs as far as they apply."""

    rows: tuple[int, ...]
    archive: str
    study_uid: str
    series_uid: str
    sop_uid: str
    code: str
    change: str
