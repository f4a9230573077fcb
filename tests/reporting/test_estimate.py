"""How much, how long, over how many nights: exact numbers from exact givens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.config.time_window import Schedule, parse_schedule
from dicom_quarry.model import Study
from dicom_quarry.reporting.estimate import (
    DEFAULT_BYTES_PER_SECOND,
    DataVolume,
    make_forecast,
    spread_over_windows,
    typical_instance_size,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
NIGHTS = parse_schedule("19:00-07:00", UTC)


def amount(*studies: tuple[str, int | None]) -> DataVolume:
    made = DataVolume()
    for number, (modalities, count) in enumerate(studies):
        made.add(Study(f"1.2.{number}", modalities=modalities, instance_count=count))
    return made


@pytest.mark.parametrize(
    ("modalities", "size"),
    [
        ("CT", 530_000),
        ("CT\\SR", 530_000),
        ("SR\\ MG", 27_000_000),
        ("KO", 5_000),
        ("", 1_000_000),
        ("ZZ", 1_000_000),
    ],
)
def test_the_largest_images_count(modalities: str, size: int) -> None:
    assert typical_instance_size(modalities) == size


def test_studies_that_were_not_counted_are_as_large_as_the_others() -> None:
    made = amount(("CT", 10), ("CT", 30), ("CT", None), ("MR", None))
    assert (made.studies, made.instances, made.uncounted) == (4, 40, 2)
    assert made.estimated_size == 40 * 530_000 * 2
    assert amount().estimated_size == 0


def test_nothing_is_estimated_from_nothing() -> None:
    assert amount(("CT", None), ("MR", None)).estimated_size is None
    made = make_forecast("pacs", amount(("CT", None)), [Limits()], 1e6, NOON)
    assert (made.seconds, made.windows, made.ends_at) == (None, None, None)
    hourly = make_forecast("pacs", amount(("CT", None)), [Limits(studies_per_hour=2)], None, NOON)
    assert hourly.seconds == 1800


@pytest.mark.parametrize(
    ("limits", "earlier", "seconds", "note"),
    [
        ({}, None, 53e6 / DEFAULT_BYTES_PER_SECOND, "assuming 5 MB/s"),
        ({}, 10e6, 5.3, "at 10.0 MB/s as in earlier jobs"),
        ({"megabytes_per_second": 2.0}, 10e6, 26.5, "at the allowed 2 MB/s"),
        ({"studies_per_hour": 60.0}, 10e6, 60.0, "at the allowed 60 studies per hour"),
        ({"studies_per_hour": 60.0, "megabytes_per_second": 0.5}, None, 106.0, "at the allowed 0.5 MB/s"),
    ],
)
def test_the_rate(limits: dict[str, float], earlier: float | None, seconds: float, note: str) -> None:
    made = make_forecast("main", amount(("CT", 100)), [Limits(), Limits(**limits)], earlier, NOON)
    assert made.seconds == pytest.approx(seconds)
    assert note in made.rate_note
    assert (made.windows, made.ends_at) == (0, NOON + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("hours", "windows", "ends"),
    [
        (1.0, 1, datetime(2026, 3, 2, 20, 0, tzinfo=UTC)),
        (12.0, 1, datetime(2026, 3, 3, 7, 0, tzinfo=UTC)),
        (13.0, 2, datetime(2026, 3, 3, 20, 0, tzinfo=UTC)),
        (36.5, 4, datetime(2026, 3, 5, 19, 30, tzinfo=UTC)),
    ],
)
def test_nights(hours: float, windows: int, ends: datetime) -> None:
    assert spread_over_windows(NIGHTS, hours * 3600, NOON) == (windows, ends)


def test_too_many_nights_to_count() -> None:
    assert spread_over_windows(parse_schedule("Mon 01:00-01:01", UTC), 1e9, NOON) == (None, None)
    assert spread_over_windows(Schedule(), 60, NOON) == (0, NOON + timedelta(minutes=1))


def test_a_site_s_window_counts_too() -> None:
    own, site = Limits(window="18:00-24:00", time_zone="UTC"), Limits(window="20:00-22:00", time_zone="UTC")
    made = make_forecast("main", amount(("CT", 100)), [own, site], 53e6 / 10_800, NOON)
    assert (made.windows, made.ends_at) == (2, datetime(2026, 3, 3, 21, 0, tzinfo=UTC))
