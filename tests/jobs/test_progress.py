"""Progress of a job that others work on: the totals of a run come from the record."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_quarry.jobs.progress import ProgressMeter, StatusBoard
from dicom_quarry.ledger.views import Counts


class Record:
    """A record that grows by 10 instances of 100 bytes with every look."""

    def __init__(self) -> None:
        self.instances = 40

    def counts(self) -> Counts:
        self.instances += 10
        return Counts(1, 0, {}, 1, 0, 0, 1000, self.instances, 100 * self.instances)


def test_the_rate_of_others_is_that_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("dicom_quarry.jobs.progress.time.monotonic", lambda: now)
    record: Any = Record()
    meter = ProgressMeter(record, StatusBoard())
    now += 5
    snapshot = meter.snapshot_from_record()
    assert (snapshot.instances, snapshot.size) == (10, 1000), "of this run"
    assert (snapshot.instances_per_second, snapshot.bytes_per_second) == (2, 200)
    assert snapshot.counts.instances_stored == 60
