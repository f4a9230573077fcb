"""How fast an archive was in this user's earlier jobs."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.folder import existing
from dicom_quarry.jobs.registry import registered
from dicom_quarry.ledger.reader import Reader
from dicom_quarry.model import AE, BaseUri

#: Jobs that are looked at.
_MOST = 20


def earlier_rate(places: tuple[AE | BaseUri, ...]) -> float | None:
    """Bytes a second while something was moved from this archive alone; None where nothing ever was."""
    size = seconds = 0.0
    for out in islice(registered(), _MOST):
        try:
            with closing(Reader(existing(out).ledger)) as reader:
                settings = Settings.model_validate_json(reader.facts()["settings"])
                if {one.places for one in settings.archives} == {places}:
                    moved = reader.moved()
                    size, seconds = size + moved[0], seconds + moved[1]
        except (InputError, LedgerError, KeyError, ValueError):
            continue  # what cannot be read says nothing
    return size / seconds if size and seconds else None
