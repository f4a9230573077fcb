"""Estimates of the size and the duration of a plan, with the assumptions behind them. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.model import Study

#: Typical bytes of an uncompressed instance by modality: rows × columns × bytes per pixel of common
#: equipment, times the usual number of frames. A study can have ten times as much.
TYPICAL_INSTANCE_BYTES = {
    "CT": 530_000,
    "MR": 200_000,
    "PT": 70_000,
    "NM": 500_000,
    "CR": 8_000_000,
    "DX": 12_000_000,
    "MG": 27_000_000,
    "US": 3_000_000,
    "XA": 25_000_000,
    "RF": 5_000_000,
    "OT": 1_000_000,
    "SC": 1_000_000,
    "SEG": 5_000_000,
    "RTDOSE": 5_000_000,
    "RTIMAGE": 2_000_000,
    "RTSTRUCT": 2_000_000,
    "RTPLAN": 50_000,
    "REG": 20_000,
    "SR": 20_000,
    "PR": 20_000,
    "KO": 5_000,
}
_DEFAULT_INSTANCE_BYTES = 1_000_000

#: Bytes per second of an archive without earlier jobs: typical of C-MOVE in a hospital's network.
DEFAULT_BYTES_PER_SECOND = 5e6

#: Maximum number of time windows to count.
_MAX_WINDOWS = 400


@dataclass(slots=True)
class DataVolume:
    """Numbers of the studies of one archive, and their bytes.

    ``uncounted`` is the number of studies for which the archive gave no number of instances.
    """

    studies: int = 0
    instances: int = 0
    size: int = 0
    uncounted: int = 0

    def add(self, study: Study) -> None:
        """Add a study."""
        self.studies += 1
        if study.instance_count is None:
            self.uncounted += 1
            return
        self.instances += study.instance_count
        self.size += study.instance_count * typical_instance_size(study.modalities)

    @property
    def is_counted(self) -> bool:
        """False if there are studies, and the archive gave a number of instances for none of them."""
        return not self.studies or self.uncounted < self.studies

    @property
    def estimated_size(self) -> int | None:
        """Bytes of all studies, None if unknown.

        The uncounted ones are assumed to be as large as the others on average.
        """
        if not self.is_counted:
            return None
        return self.size * self.studies // max(1, self.studies - self.uncounted)


def typical_instance_size(modalities: str) -> int:
    """Return the typical bytes of an instance of a study, for the modality with the largest images."""
    known = [
        TYPICAL_INSTANCE_BYTES[name]
        for name in modalities.upper().replace(" ", "").split("\\")
        if name in TYPICAL_INSTANCE_BYTES
    ]
    return max(known, default=_DEFAULT_INSTANCE_BYTES)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The amount of data to fetch from an archive, and the time in seconds that it takes, None if unknown.

    ``rate_note`` names the rate and its source. ``windows`` is the number of time windows needed: 0 if the
    archive has no time window, None if there are too many to count. ``ends_at`` is the end of a job that
    begins now, None if unknown.
    """

    archive: str
    volume: DataVolume
    seconds: float | None
    rate_note: str
    windows: int | None
    ends_at: datetime | None


def make_forecast(
    archive: str, volume: DataVolume, limits: Sequence[Limits], past_throughput: float | None, now: datetime
) -> Forecast:
    """Estimate the time by the strictest limit, or by the throughput of earlier jobs (bytes per second)."""
    choice = max(_possible_rates(volume, limits, past_throughput), default=None)
    if choice is None:
        return Forecast(archive, volume, None, "", None, None)
    seconds, rate_note = choice
    schedule = reduce(and_, (one.schedule for one in limits))
    windows, ends = spread_over_windows(schedule, seconds, now)
    return Forecast(archive, volume, seconds, rate_note, windows, ends)


def _possible_rates(
    volume: DataVolume, limits: Sequence[Limits], past_throughput: float | None
) -> list[tuple[float, str]]:
    """Return the seconds that each limit needs, or else the usual rate, with a note; none if unknown."""
    megabytes = min((one.megabytes_per_second for one in limits if one.megabytes_per_second), default=None)
    hourly = min((one.studies_per_hour for one in limits if one.studies_per_hour), default=None)
    size = volume.estimated_size
    choices: list[tuple[float, str]] = []
    if megabytes and size is not None:
        choices.append((size / (megabytes * 1e6), f"at the allowed {megabytes:g} MB/s"))
    if hourly:
        choices.append((volume.studies * 3600 / hourly, f"at the allowed {hourly:g} studies per hour"))
    if choices or size is None:
        return choices
    if past_throughput:
        return [(size / past_throughput, f"at {past_throughput / 1e6:.1f} MB/s as in earlier jobs")]
    note = f"assuming {DEFAULT_BYTES_PER_SECOND / 1e6:g} MB/s (no earlier job to measure)"
    return [(size / DEFAULT_BYTES_PER_SECOND, note)]


def spread_over_windows(
    schedule: Schedule, seconds: float, now: datetime
) -> tuple[int | None, datetime | None]:
    """Return the number of time windows that these seconds need, and the end of the last one used."""
    if not schedule.windows:
        return 0, now + timedelta(seconds=min(seconds, 1e9))
    at, left = now, timedelta(seconds=min(seconds, 1e9))
    for number in range(1, _MAX_WINDOWS + 1):
        opens = schedule.next_open(at)
        closes = schedule.next_close(opens) if opens else None
        if opens is None:
            return None, None
        if closes is None or closes - opens >= left:
            return number, opens + left
        left -= closes - opens
        at = closes
    return None, None
