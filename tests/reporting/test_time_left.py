"""The end of a job, measured on a simulated week of nights."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from operator import add

import pytest

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.jobs.progress import TimeLeft
from dicom_quarry.ledger.views import Counts, StudyGroup
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.reporting import time_left
from dicom_quarry.reporting.time_left import TimeLeftEstimator

NIGHT = Limits(window="19:00-07:00", time_zone="UTC")
BEGIN = datetime(2026, 3, 2, 19, tzinfo=UTC)  # a Monday

#: Modality, share of the cohort, images of a study, true bytes of an image (the estimate knows typical ones).
KINDS = (
    ("CT", 0.4, 350, 310_000),
    ("MR", 0.25, 220, 150_000),
    ("DX", 0.3, 2, 7_000_000),
    ("MG", 0.05, 4, 30e6),
)
STEP = 300.0


@dataclass(frozen=True)
class Fetched:
    """A study of the simulation."""

    modality: str
    images: int
    size: int


def cohort(seed: int, number: int) -> list[Fetched]:
    """Studies in a random order; their sizes differ by a factor of ten."""
    chance = random.Random(seed)
    studies = []
    for _ in range(number):
        modality, _, images, size = chance.choices(KINDS, [kind[1] for kind in KINDS])[0]
        count = max(1, round(images * chance.lognormvariate(0, 0.7)))
        studies.append(Fetched(modality, count, round(count * size)))
    return studies


def speed(at: datetime) -> float:
    """How fast the archive is: slow in the evening, faster at night, and not at all in an outage."""
    if datetime(2026, 3, 4, 1, tzinfo=UTC) <= at < datetime(2026, 3, 4, 3, tzinfo=UTC):
        return 0.0
    return 0.6 if 19 <= at.hour < 22 else 1.15


class Week:
    """A job, step by step: ``planned`` jobs know all studies from the start, others find them row by row."""

    def __init__(self, studies: list[Fetched], *, planned: bool, stopped: range = range(0)) -> None:
        self._studies = studies
        self._planned = planned
        self._stopped = stopped
        self._sums = {kind[0]: running_sums(studies, kind[0]) for kind in KINDS}
        self.estimator = TimeLeftEstimator({"PACS": [NIGHT]})

    def run(self) -> list[tuple[datetime, TimeLeft]]:
        """Run to the end; return the estimates, and the end as the last moment."""
        now, at, credit, estimates = BEGIN, 0, 0.0, []
        start = 0
        while at < len(self._studies):
            hours = (now - BEGIN).total_seconds() / 3600
            if hours in self._stopped:
                # The job is stopped, and a new process continues it hours later with what was recorded.
                now += timedelta(hours=3)
                self.estimator = TimeLeftEstimator({"PACS": [NIGHT]}, self.estimator.dump_history())
                start = at
            if not NIGHT.schedule.is_open(now):
                now = NIGHT.schedule.next_open(now) or now
            for _ in range(3):  # a job updates once a second; no gap is longer than the estimator believes
                now += timedelta(seconds=STEP / 3)
                credit += STEP / 3 * speed(now)
                while at < len(self._studies) and credit >= (cost := seconds_for(self._studies[at])):
                    credit, at = credit - cost, at + 1
                totals = [sum(sums[at][i] - sums[start][i] for sums in self._sums.values()) for i in (1, 2)]
                estimates.append((now, self.estimator.update(now, self.counts(at), *totals)))
        return estimates

    def counts(self, done: int) -> Counts:
        """What the ledger counts when so many studies are done."""
        number = len(self._studies)
        known = number if self._planned else min(number, done + 8)
        groups = (*self._groups(0, done, is_done=True), *self._groups(done, known, is_done=False))
        return Counts(
            rows=number,
            rows_waiting=number - known,
            rows_by_status={OutcomeStatus.COMPLETE: done, OutcomeStatus.PENDING: number - done},
            studies=known,
            studies_done=done,
            studies_complete=done,
            instances_expected=sum(one.instances for one in groups),
            instances_stored=sum(one.stored for one in groups),
            size=sum(one.size for one in groups),
            study_groups=groups,
        )

    def _groups(self, first: int, last: int, *, is_done: bool) -> Iterator[StudyGroup]:
        for modality, sums in self._sums.items():
            studies, images, size = (
                there - here for there, here in zip(sums[last], sums[first], strict=True)
            )
            stored = (images, size) if is_done else (0, 0)
            yield StudyGroup("PACS", modality, is_done, studies, images, 0, *stored)


def running_sums(studies: list[Fetched], modality: str) -> list[tuple[int, int, int]]:
    """Studies, images and bytes of a modality among the first 0, 1, 2, … studies."""
    mine = [(1, one.images, one.size) if one.modality == modality else (0, 0, 0) for one in studies]
    return list(accumulate(mine, lambda sums, one: tuple(map(add, sums, one)), initial=(0, 0, 0)))


def seconds_for(study: Fetched) -> float:
    """The truth that the estimate does not know: seconds for a study at speed one."""
    return 1.5 + study.images * 0.015 + study.size / 12e6


@pytest.fixture(autouse=True)
def _estimates_every_twenty_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A week has half a million seconds: fewer estimates, and all else as it is."""
    monkeypatch.setattr(time_left, "_INTERVAL", 1200.0)


@pytest.mark.parametrize(
    ("seed", "planned", "stopped"), [(1, True, range(0)), (5, False, range(0)), (7, False, range(55, 56))]
)
def test_the_end_is_within_a_quarter_from_the_first_tenth_on(
    seed: int, planned: bool, stopped: range
) -> None:
    estimates = Week(cohort(seed, 12_000), planned=planned, stopped=stopped).run()
    end = estimates[-1][0]
    assert end - BEGIN > timedelta(days=3), "several nights"
    tenth, last = BEGIN + (end - BEGIN) / 10, end - timedelta(minutes=30)
    settling = BEGIN + timedelta(hours=58), BEGIN + timedelta(hours=59)
    for now, left in estimates:
        if not tenth <= now <= last or (stopped and settling[0] <= now <= settling[1]):
            continue
        assert left.seconds is not None, now
        assert left.seconds == pytest.approx((end - now).total_seconds(), rel=0.25), now


def test_nothing_is_said_before_the_estimates_agree() -> None:
    estimates = Week(cohort(1, 12_000), planned=True).run()
    unknown = [now for now, left in estimates if left.seconds is None and now < estimates[-1][0]]
    assert unknown and unknown[0] - BEGIN < timedelta(minutes=5)
    first = next(now for now, left in estimates if left.seconds is not None)
    assert all(
        left.seconds is not None
        for now, left in estimates
        if first < now < estimates[-1][0] - timedelta(hours=1)
    )


def test_the_bar_counts_bytes() -> None:
    studies = [Fetched("CT", 100, 50_000_000)] * 10 + [Fetched("CT", 1000, 500_000_000)]
    week = Week(studies, planned=True)
    now = datetime(2026, 3, 2, 20, tzinfo=UTC)
    left = week.estimator.update(now, week.counts(10), 0, 0)
    assert (left.bytes_done, left.bytes_expected) == (500_000_000, 1_000_000_000)
    later = week.estimator.update(now + timedelta(hours=1), week.counts(10), 500, 250_000_000)
    assert later.bytes_done == 750_000_000, "a study in transfer counts"


def test_a_limit_that_is_slower_than_the_archive_decides() -> None:
    limits = Limits(studies_per_hour=2)
    estimator = TimeLeftEstimator({"PACS": [limits]}, "[[18, 3600, 9e9], [19, 3600, 9e9]]")
    week = Week([Fetched("DX", 1, 10_000_000)] * 24, planned=True)
    now = datetime(2026, 3, 2, 20, tzinfo=UTC)
    left = estimator.update(now, week.counts(20), 0, 0)
    assert left.seconds == pytest.approx(2 * 3600)


def test_a_record_of_another_version_is_no_reason_to_fail() -> None:
    for text in ("", "{", "[[1]]", '[["a", 1, 2]]', "null"):
        assert TimeLeftEstimator({"PACS": [NIGHT]}, text).dump_history() == "[]"
