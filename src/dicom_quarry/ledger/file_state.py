"""The state of the files in a job's record: damage that a comparison has found and nothing has mended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from dicom_quarry.ledger.backend import backend_of
from dicom_quarry.ledger.ledger import Ledger, write_metadata
from dicom_quarry.ledger.location import LedgerLocation

#: The name of the fact about the job.
FILE_STATE = "files"


@dataclass(frozen=True, slots=True)
class FileDamage:
    """A number of files that are damaged or missing; ``found_by`` is a command, ``found_at`` a POSIX time.

    ``by_size``: all are missing or of another size, so that a comparison of sizes can find them whole.
    """

    files: int
    found_by: str
    found_at: float
    by_size: bool = False


def read_damage(metadata: Mapping[str, str]) -> FileDamage | None:
    """Return the damage in a job's record, None if there is none."""
    try:
        found = json.loads(metadata.get(FILE_STATE) or "{}")
        return FileDamage(**found) if found else None
    except (ValueError, TypeError):
        return None  # of another version


def clear_damage(ledger: Ledger) -> None:
    """Record that the damage is mended."""
    if ledger.metadata().get(FILE_STATE):
        ledger.set_metadata(**{FILE_STATE: ""})


def record_damage(ledger: LedgerLocation, before: FileDamage | None, damage: FileDamage | None) -> None:
    """Record what a comparison found, also while the job runs; nothing is written if nothing has changed."""
    if before is None and damage is None:
        return
    engine = backend_of(ledger).open_engine()
    try:
        with engine.begin() as connection:
            write_metadata(connection, {FILE_STATE: json.dumps(asdict(damage)) if damage is not None else ""})
    finally:
        engine.dispose()
