"""The end of a running job, estimated from its record, the archive's hours and the nights so far. No I/O.

The work of a job is counted in bytes; every instance and every study adds the bytes that could have come
while it is requested and listed. The work that is left comes from the studies that are listed or found, and
from those that the rows without an answer will find if they are like the others. It is divided by the work of
the last hours in which the archive could be queried, outages and slow evenings included, and laid into the
hours to come.

Times are arguments; a job calls :meth:`TimeLeftEstimator.update` about once a second.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from operator import and_

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.jobs.progress import TimeLeft
from dicom_quarry.ledger.views import Counts, StudyGroup
from dicom_quarry.reporting.estimate import spread_over_windows, typical_instance_size

#: Bytes that could come in the time of one request for an instance, and of listing and requesting a study.
_INSTANCE_WORK, _STUDY_WORK = 50_000, 5_000_000

#: Open hours that are remembered, each as one sample, and the latest of them, which give the rate.
_MAX_SAMPLES, _RATE_SAMPLES = 72, 24

#: Seconds of a usual hour that an hour of the day counts beside its own samples: one night proves little.
_PRIOR_SECONDS = 3600.0

#: Step and horizon of the walk through the hours to come.
_STEP, _HORIZON = timedelta(minutes=15), timedelta(days=120)

#: Longest time between two updates that counts as work: the computer may have slept.
_MAX_GAP = 120.0

#: Least open seconds and studies before an end is named; the share of the work that replaces both.
_LEAST_SECONDS, _LEAST_STUDIES, _LEAST_SHARE = 10.0, 5, 0.05

#: An end is named while the estimates of the whole job differ less than this, and until they differ more.
_STABLE, _UNSTABLE = 1.2, 1.6

#: Seconds between two estimates; fewer at the beginning.
_INTERVAL = 5.0


@dataclass(slots=True)
class _Sample:
    """Open seconds of one hour, and the work in them; ``hour`` is the hour of the day in UTC."""

    hour: int
    seconds: float = 0.0
    work: float = 0.0


class TimeLeftEstimator:
    """Estimates the end of one job.

    ``limits`` are those of each archive, by its name; ``history`` is what ``dump_history`` returned at the
    end of an earlier run, empty for the first.
    """

    def __init__(self, limits: Mapping[str, Sequence[Limits]], history: str = "") -> None:
        self._limits = limits
        self._schedules = {
            name: reduce(and_, (one.schedule for one in found)) for name, found in limits.items()
        }
        self._samples: deque[_Sample] = deque(_parse_history(history), _MAX_SAMPLES)
        self._totals: deque[tuple[float, float]] = deque()
        self._open_seconds = 0.0
        self._updated_at: datetime | None = None
        self._work = 0.0
        self._initial: Counts | None = None
        self._is_stable = False
        self._latest = TimeLeft()
        self._ends: datetime | None = None
        self._estimated_at: datetime | None = None

    def update(self, now: datetime, counts: Counts, instances: int, size: int) -> TimeLeft:
        """Return the estimate for a moment; ``instances`` and ``size`` are the totals of this run."""
        if self._initial is None:
            self._initial = counts
        self._record(now, self._work_of_run(counts, instances, size))
        interval = min(_INTERVAL, self._open_seconds / 10)
        if self._estimated_at is None or (now - self._estimated_at).total_seconds() >= interval:
            self._estimated_at = now
            self._latest, self._ends = self._estimate(now, counts, size)
        left = None if self._ends is None else max(0.0, (self._ends - now).total_seconds())
        return replace(self._latest, seconds=left)

    def dump_history(self) -> str:
        """Return the samples for the next run."""
        return json.dumps([[one.hour, round(one.seconds), round(one.work)] for one in self._samples])

    def _work_of_run(self, counts: Counts, instances: int, size: int) -> float:
        assert self._initial is not None
        studies = counts.studies_done - self._initial.studies_done
        return size + instances * _INSTANCE_WORK + studies * _STUDY_WORK

    def _record(self, now: datetime, work: float) -> None:
        """Add the time since the last update, if the archive was open, and the work in it."""
        before, self._updated_at = self._updated_at, now
        if before is None:
            return
        seconds = min(_MAX_GAP, max(0.0, (now - before).total_seconds()))
        is_open = any(schedule.is_open(now) for schedule in self._schedules.values())
        gained, self._work = max(0.0, work - self._work), max(work, self._work)
        if not self._samples or self._samples[-1].hour != now.hour:
            self._samples.append(_Sample(now.hour))
        if is_open:
            self._samples[-1].seconds += seconds
            self._open_seconds += seconds
        self._samples[-1].work += gained

    def _estimate(self, now: datetime, counts: Counts, size: int) -> tuple[TimeLeft, datetime | None]:
        """Return the bytes so far and in the end, and the end of the job, None while it is unknown."""
        assert self._initial is not None
        in_transfer = max(0.0, size - (counts.size - self._initial.size))
        left = remaining_work(counts)
        expected = counts.size + sum(one.size for one in left.values())
        done = min(expected, counts.size + in_transfer)
        share = done / expected if expected else 1.0
        progress = TimeLeft(None, round(done), round(expected))
        recent = self._usual_samples()[-_RATE_SAMPLES:]
        seconds, work = sum(one.seconds for one in recent), sum(one.work for one in recent)
        if not work or not seconds or not left:
            return progress, None
        for one in left.values():
            one.size, in_transfer = max(0.0, one.size - in_transfer), max(0.0, in_transfer - one.size)
        rate = work / seconds
        needed = sum(max(one.work / rate, self._limited_seconds(name, one)) for name, one in left.items())
        if not self._is_settled(needed, seconds, counts, share):
            return progress, None
        return progress, self._end(left, rate, now)

    def _usual_samples(self) -> list[_Sample]:
        """Return the samples without the hours of an outage: no work, though another night had some.

        A pause of every night, such as that for a backup, counts.
        """
        working_hours = {one.hour for one in self._samples if one.work}
        return [one for one in self._samples if one.work or one.hour not in working_hours]

    def _limited_seconds(self, archive: str, left: RemainingWork) -> float:
        """Return the open seconds that the limits of an archive make of its rest; 0 without limits."""
        limits = self._limits.get(archive, ())
        megabytes = min(
            (one.megabytes_per_second for one in limits if one.megabytes_per_second), default=None
        )
        hourly = min((one.studies_per_hour for one in limits if one.studies_per_hour), default=None)
        return max(
            left.size / (megabytes * 1e6) if megabytes else 0.0,
            left.studies * 3600 / hourly if hourly else 0.0,
        )

    def _is_settled(self, needed: float, measured: float, counts: Counts, share: float) -> bool:
        """Return True if an end can be named: enough was done, and the estimates agree with each other.

        ``needed`` and ``measured`` are the open seconds of the rest, and those from which it was estimated.
        """
        at = self._open_seconds
        self._totals.append((at, at + needed))
        while len(self._totals) > 2 and self._totals[0][0] < at * 2 / 3:
            self._totals.popleft()
        enough = share >= _LEAST_SHARE or counts.studies_done >= _LEAST_STUDIES
        if not enough or measured < _LEAST_SECONDS:
            return False
        found = [one for _, one in self._totals]
        spread = max(found) / max(min(found), 1.0)
        self._is_stable = spread <= (_UNSTABLE if self._is_stable else _STABLE)
        return self._is_stable

    def _end(self, left: Mapping[str, RemainingWork], rate: float, now: datetime) -> datetime | None:
        """Return the latest end of the archives. Those with the same hours are worked on together."""
        work: dict[Schedule, float] = {}
        limited: dict[Schedule, float] = {}
        for name, one in left.items():
            schedule = self._schedules.get(name, Schedule())
            work[schedule] = work.get(schedule, 0.0) + one.work
            limited[schedule] = max(limited.get(schedule, 0.0), self._limited_seconds(name, one))
        ends = [self._walk(schedule, amount, rate, now) for schedule, amount in work.items()]
        ends += [
            spread_over_windows(schedule, seconds, now)[1] for schedule, seconds in limited.items() if seconds
        ]
        return None if None in ends else max(end for end in ends if end is not None)

    def _walk(self, schedule: Schedule, work: float, rate: float, now: datetime) -> datetime | None:
        """Return the moment at which the work is done, at the pace of each hour; None if too far."""
        pace = self._pace_by_hour()
        at = now
        while at < now + _HORIZON:
            following = at - (at - datetime.min.replace(tzinfo=at.tzinfo)) % _STEP + _STEP
            if schedule.is_open(at):
                speed = rate * pace[at.hour]
                if work <= speed * (following - at).total_seconds():
                    return at + timedelta(seconds=work / speed)
                work -= speed * (following - at).total_seconds()
            at = following
        return None

    def _pace_by_hour(self) -> list[float]:
        """Return the pace of each hour of the day, as a share of the usual rate of all remembered hours."""
        samples = self._usual_samples()
        usual = sum(one.work for one in samples) / sum(one.seconds for one in samples)
        found = [(_PRIOR_SECONDS, _PRIOR_SECONDS * usual)] * 24
        for one in samples:
            found[one.hour] = found[one.hour][0] + one.seconds, found[one.hour][1] + one.work
        return [worked / (lasted * usual) for lasted, worked in found]


@dataclass(slots=True)
class RemainingWork:
    """The studies of an archive that are not done: their number, instances and bytes, as estimated."""

    studies: float = 0.0
    instances: float = 0.0
    size: float = 0.0

    @property
    def work(self) -> float:
        """The work in bytes."""
        return self.size + self.instances * _INSTANCE_WORK + self.studies * _STUDY_WORK

    def add(self, studies: float, instances: float, size: float) -> None:
        """Add studies."""
        self.studies, self.instances, self.size = (
            self.studies + studies,
            self.instances + instances,
            self.size + size,
        )


def remaining_work(counts: Counts) -> dict[str, RemainingWork]:
    """Estimate the work that is left, by archive; those without any are left out.

    A study without a number of instances is taken to be like the others. A row that was not queried yet
    is taken to find as much as the rows that were.
    """
    sizes = _InstanceSizes(counts.study_groups)
    left: dict[str, RemainingWork] = {}
    all_found: dict[str, RemainingWork] = {}
    counted = [one for one in counts.study_groups if one.studies > one.uncounted]
    per_study = sum(one.instances for one in counted) / max(
        1, sum(one.studies - one.uncounted for one in counted)
    )
    for group in counts.study_groups:
        instances = group.instances + group.uncounted * per_study
        size = group.size if group.is_done else instances * sizes.of(group.modalities)
        all_found.setdefault(group.archive, RemainingWork()).add(group.studies, instances, size)
        if not group.is_done:
            rest = (max(0.0, instances - group.stored), max(0.0, size - group.size))
            left.setdefault(group.archive, RemainingWork()).add(group.studies, *rest)
    resolved = counts.rows - counts.rows_waiting
    if counts.rows_waiting and resolved:
        factor = counts.rows_waiting / resolved
        for archive, all_of in all_found.items():
            more = (all_of.studies * factor, all_of.instances * factor, all_of.size * factor)
            left.setdefault(archive, RemainingWork()).add(*more)
    return {archive: one for archive, one in left.items() if one.studies}


class _InstanceSizes:
    """Bytes of an instance by modality: measured in this job, else typical ones, corrected by the others."""

    def __init__(self, groups: Sequence[StudyGroup]) -> None:
        self._measured: dict[str, tuple[int, int]] = {}
        size = typical = 0.0
        for group in groups:
            if group.is_done and group.stored:
                instances, bytes_ = self._measured.get(group.modalities, (0, 0))
                self._measured[group.modalities] = instances + group.stored, bytes_ + group.size
                size += group.size
                typical += group.stored * typical_instance_size(group.modalities)
        self._correction = size / typical if typical else 1.0

    def of(self, modalities: str) -> float:
        """Return the bytes of an instance."""
        instances, size = self._measured.get(modalities, (0, 0))
        return size / instances if instances else typical_instance_size(modalities) * self._correction


def _parse_history(text: str) -> list[_Sample]:
    """Return the samples of an earlier run; none if they cannot be read: an estimate is no reason to fail."""
    try:
        return [
            _Sample(int(hour), float(seconds), float(work))
            for hour, seconds, work in json.loads(text or "[]")
        ]
    except (ValueError, TypeError):
        return []
