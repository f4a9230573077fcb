"""The throughput of an archive in this user's earlier jobs."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.jobs.registry import list_registered
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import AE, BaseUri

#: Jobs that are read at most.
_MAX_JOBS = 20


def compute_past_throughput(addresses: tuple[AE | BaseUri, ...]) -> float | None:
    """Return the bytes per second of retrievals in jobs with this archive alone; None if there are none."""
    size = seconds = 0.0
    for out in islice(list_registered(), _MAX_JOBS):
        try:
            with closing(LedgerReader(open_existing(out).ledger)) as reader:
                settings = Settings.model_validate_json(reader.metadata()["settings"])
                if {one.addresses for one in settings.archives} == {addresses}:
                    transferred = reader.retrieval_totals()
                    size, seconds = size + transferred[0], seconds + transferred[1]
        except (InputError, LedgerError, KeyError, ValueError):
            continue  # a job that cannot be read does not count
    return size / seconds if size and seconds else None
