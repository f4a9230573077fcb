"""How much a plan would bring, and how long that takes: estimates, which say what they are made of. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import and_

from dicom_quarry.config.settings import Limits
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.model import Study

#: Bytes of an instance as it is typical of a modality, uncompressed: rows × columns × bytes for a pixel of
#: common equipment, and the usual number of frames where there are several. A study can be ten times that.
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

#: Bytes a second where nothing is known of an archive: what C-MOVE over a hospital's network gives.
DEFAULT_BYTES_PER_SECOND = 5e6

#: Windows that are counted one by one; what takes longer is said to take more.
_MAX_WINDOWS = 400


@dataclass(slots=True)
class DataVolume:
    """Studies of one archive. ``uncounted`` are those whose instances it did not count."""

    studies: int = 0
    instances: int = 0
    size: int = 0
    uncounted: int = 0

    def add(self, study: Study) -> None:
        """One more."""
        self.studies += 1
        if study.instance_count is None:
            self.uncounted += 1
            return
        self.instances += study.instance_count
        self.size += study.instance_count * typical_instance_size(study.modalities)

    @property
    def estimated_size(self) -> int:
        """Bytes of all studies: those that were not counted are taken for as large as the others are."""
        counted = self.studies - self.uncounted
        return self.size * self.studies // counted if counted else 0


def typical_instance_size(modalities: str) -> int:
    """Bytes of an instance of a study: of its modalities the one with the largest images."""
    known = [
        TYPICAL_INSTANCE_BYTES[name]
        for name in modalities.upper().replace(" ", "").split("\\")
        if name in TYPICAL_INSTANCE_BYTES
    ]
    return max(known, default=_DEFAULT_INSTANCE_BYTES)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be fetched from an archive, and how long it takes.

    ``pace`` says at which rate, and where that is from. ``windows`` is the number of windows that it takes,
    0 where the archive may always be asked, None where they are too many to count; ``ends`` is when it
    would end if it began now.
    """

    archive: str
    volume: DataVolume
    seconds: float
    rate_note: str
    windows: int | None
    ends_at: datetime | None


def make_forecast(
    archive: str, volume: DataVolume, limits: Sequence[Limits], past_throughput: float | None, now: datetime
) -> Forecast:
    """Time by the tightest of the limits; ``earlier`` is the rate of earlier jobs in bytes a second."""
    seconds, rate_note = _choose_rate(volume, limits, past_throughput)
    schedule = reduce(and_, (one.schedule for one in limits))
    windows, ends = spread_over_windows(schedule, seconds, now)
    return Forecast(archive, volume, seconds, rate_note, windows, ends)


def _choose_rate(
    volume: DataVolume, limits: Sequence[Limits], past_throughput: float | None
) -> tuple[float, str]:
    megabytes = min((one.megabytes_per_second for one in limits if one.megabytes_per_second), default=None)
    hourly = min((one.studies_per_hour for one in limits if one.studies_per_hour), default=None)
    choices: list[tuple[float, str]] = []
    if megabytes:
        choices.append(
            (volume.estimated_size / (megabytes * 1e6), f"at the {megabytes:g} MB/s that are allowed")
        )
    if hourly:
        choices.append(
            (volume.studies * 3600 / hourly, f"at the {hourly:g} studies an hour that are allowed")
        )
    if not choices and past_throughput:
        choices.append(
            (
                volume.estimated_size / past_throughput,
                f"at {past_throughput / 1e6:.1f} MB/s, as in earlier jobs",
            )
        )
    if not choices:
        choices.append(
            (
                volume.estimated_size / DEFAULT_BYTES_PER_SECOND,
                f"at {DEFAULT_BYTES_PER_SECOND / 1e6:g} MB/s, which is assumed",
            )
        )
    return max(choices)


def spread_over_windows(
    schedule: Schedule, seconds: float, now: datetime
) -> tuple[int | None, datetime | None]:
    """Over how many windows so many seconds are spread, and when they have passed."""
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
