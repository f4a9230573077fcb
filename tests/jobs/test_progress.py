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


def test_a_count_that_waits_for_an_absent_database_does_not_put_the_next_one_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("dicom_quarry.jobs.progress.time.monotonic", lambda: now)

    class SlowOnce(Record):
        def counts(self) -> Counts:
            nonlocal now
            now += 2 if self.instances == 50 else 0
            return super().counts()

    record: Any = SlowOnce()
    meter = ProgressMeter(record, StatusBoard())
    for _ in range(2):
        now += 1
        meter.snapshot_from_record()
    assert record.instances == 70
