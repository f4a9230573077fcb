"""Windows: the nights when the clock is changed, then any window at any time."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_quarry.config.time_window import DAYS, Schedule, load_time_zone, parse_schedule

NEW_YORK = ZoneInfo("America/New_York")
#: Half an hour forward, and back again, on other days than in New York.
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
ZONES = [UTC, NEW_YORK, LORD_HOWE, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")]

#: Nights on which a clock of ZONES is changed.
CHANGES = [date(2026, 3, 7), date(2026, 3, 28), date(2026, 4, 4), date(2026, 10, 3), date(2026, 10, 31)]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}+00:00")


def turns(hours: Schedule, start: datetime, end: datetime) -> list[str]:
    """When it opens, closes, opens ... between two moments, in UTC; it is closed at the start."""
    assert not hours.is_open(start)
    found: list[datetime] = [start]
    while True:
        turn = hours.next_close(found[-1]) if hours.is_open(found[-1]) else hours.next_open(found[-1])
        if turn is None or turn > end:
            return [f"{at:%m-%d %H:%M:%S}" for at in found[1:]]
        found.append(turn)


@pytest.mark.parametrize(
    ("window", "night", "opened"),
    [
        # In winter New York is 5 hours behind UTC, in summer 4; on 8 March 02:00 becomes 03:00.
        ("19:00-07:00", "03-07 20:00", ["03-08 00:00:00", "03-08 11:00:00"]),
        ("02:30-04:00", "03-07 20:00", ["03-08 07:00:00", "03-08 08:00:00"]),
        ("02:15-02:45", "03-07 20:00", []),
        ("01:00-02:30", "03-07 20:00", ["03-08 06:00:00", "03-08 07:00:00"]),
        # On 1 November 02:00 becomes 01:00.
        ("19:00-07:00", "10-31 20:00", ["10-31 23:00:00", "11-01 12:00:00"]),
        ("01:00-02:00", "10-31 20:00", ["11-01 05:00:00", "11-01 07:00:00"]),
        (
            "01:15-01:45",
            "10-31 20:00",
            ["11-01 05:15:00", "11-01 05:45:00", "11-01 06:15:00", "11-01 06:45:00"],
        ),
        ("02:00-03:00", "10-31 20:00", ["11-01 07:00:00", "11-01 08:00:00"]),
        (
            "19:00-01:30",
            "10-31 20:00",
            ["10-31 23:00:00", "11-01 05:30:00", "11-01 06:00:00", "11-01 06:30:00"],
        ),
    ],
)
def test_the_wall_clock_decides_when_it_is_changed(window: str, night: str, opened: list[str]) -> None:
    start = utc(night)
    assert turns(parse_schedule(window, NEW_YORK), start, start + timedelta(hours=20)) == opened


def test_days_are_those_on_which_a_part_starts() -> None:
    hours = parse_schedule("Mon-Fri 19:00-07:00, Sat-Sun 00:00-24:00", UTC)
    # 2026-11-20 is a Friday.
    assert turns(hours, utc("11-20 12:00"), utc("11-25 00:00")) == [
        "11-20 19:00:00",
        "11-23 00:00:00",
        "11-23 19:00:00",
        "11-24 07:00:00",
        "11-24 19:00:00",
    ]


def test_days_may_pass_sunday() -> None:
    hours = parse_schedule("Sun-Mon 22:00-23:00, Wed 22:00-02:00", UTC)
    nights = ["11-22 22:00:00", "11-22 23:00:00", "11-23 22:00:00", "11-23 23:00:00"]
    nights += ["11-25 22:00:00", "11-26 02:00:00"]
    assert turns(hours, utc("11-21 00:00"), utc("11-28 00:00")) == nights


def test_sunday_night_ends_on_monday() -> None:
    hours = parse_schedule("Sun 19:00-07:00", UTC)
    assert turns(hours, utc("11-22 12:00"), utc("11-24 00:00")) == ["11-22 19:00:00", "11-23 07:00:00"]


def test_without_windows_it_never_closes_and_a_whole_week_does_not_either() -> None:
    now = utc("11-22 12:00")
    for hours in (Schedule(), parse_schedule("00:00-24:00", NEW_YORK)):
        assert hours.next_open(now) == now
        assert hours.next_close(now) is None


def test_windows_without_a_common_hour_never_open() -> None:
    assert (parse_schedule("19:00-20:00", UTC) & parse_schedule("20:00-21:00", UTC)).next_open(
        utc("11-22 12:00")
    ) is None


def test_a_night_that_lacks_the_hour_leads_to_the_next_week() -> None:
    hours = parse_schedule("Sun 02:15-02:45", NEW_YORK)
    assert hours.next_open(utc("03-01 12:00")) == utc("03-15 06:15"), "8 March has no such hour"


def test_moments_are_spoken_by_the_clock_of_the_window() -> None:
    assert (
        parse_schedule("19:00-07:00", NEW_YORK).format_time(utc("11-24 00:00"))
        == "Mon 19:00 (America/New_York)"
    )
    assert parse_schedule("19:00-07:00", UTC).format_time(utc("11-23 19:00")) == "Mon 19:00"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a window"),
        ("7pm-7am", "is not a window"),
        ("19:00", "is not a window"),
        ("19:00-07:00,", "is not a window"),
        ("Mon,Tue 19:00-07:00", "'Mon' is not a window"),
        ("Mo 19:00-07:00", "is not a window"),
        ("Mon-Xyz 19:00-07:00", "'Xyz' is not a day"),
        ("25:00-07:00", "'25:00' is not a time of day"),
        ("19:60-07:00", "'19:60' is not a time of day"),
        ("24:01-07:00", "'24:01' is not a time of day"),
        ("24:00-07:00", "is empty"),
        ("07:00-07:00", "write a whole day as 00:00-24:00"),
    ],
)
def test_what_is_not_a_window_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_schedule(text, UTC)


@pytest.mark.parametrize("name", ["Nowhere/Else", "", "../etc/passwd", "America"])
def test_a_time_zone_that_nobody_knows_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        load_time_zone(name)


def test_the_users_variable_does_not_move_the_hosts_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_time_zone(None).utcoffset(datetime(2026, 1, 1))
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert load_time_zone(None).utcoffset(datetime(2026, 1, 1)) == before != timedelta(hours=14)


# -- any window, at any time

minutes = st.integers(0, 1439)
parts = st.tuples(
    st.none() | st.tuples(st.integers(0, 6), st.integers(0, 6)), minutes, st.integers(1, 1440)
).filter(lambda part: part[1] != part[2])
texts = st.lists(parts, min_size=1, max_size=3)
moments = st.one_of(
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    st.builds(
        lambda day, second: datetime.combine(day, time()) + timedelta(seconds=second),
        st.sampled_from(CHANGES),
        st.integers(0, 3 * 86_400),
    ),
).map(lambda at: at.replace(microsecond=0, tzinfo=UTC))
Part = tuple[tuple[int, int] | None, int, int]


def written(chosen: list[Part]) -> str:
    def part(days: tuple[int, int] | None, start: int, end: int) -> str:
        named = f"{DAYS[days[0]]}-{DAYS[days[1]]} " if days else ""
        return f"{named}{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"

    return ", ".join(part(*one) for one in chosen)


def expected(chosen: list[Part], zone: ZoneInfo, at: datetime) -> bool:
    """By the calendar: is the wall clock between start and end of a part that began today or yesterday?"""
    wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
    for days, start, end in chosen:
        for began in (wall.date(), wall.date() - timedelta(days=1)):
            first, last = days or (0, 6)
            if (began.weekday() - first) % 7 > (last - first) % 7:
                continue
            midnight = datetime.combine(began, time())
            opens = midnight + timedelta(minutes=start)
            if opens <= wall < midnight + timedelta(minutes=end, days=int(end < start)):
                return True
    return False


@given(texts, st.sampled_from(ZONES), moments)
def test_a_window_is_open_as_the_calendar_says(chosen: list[Part], zone: ZoneInfo, at: datetime) -> None:
    assert parse_schedule(written(chosen), zone).is_open(at) == expected(chosen, zone, at)


@given(texts, st.sampled_from(ZONES), moments, st.lists(st.floats(0, 0.999), max_size=20))
@example([(None, 150, 240)], NEW_YORK, utc("03-08 06:59"), [0.5])
def test_it_turns_when_it_says_and_not_before(
    chosen: list[Part], zone: ZoneInfo, at: datetime, between: list[float]
) -> None:
    hours = parse_schedule(written(chosen), zone)
    opens, closes = hours.next_open(at), hours.next_close(at)
    was_open = hours.is_open(at)
    assert (opens if was_open else closes) == at
    turn = closes if was_open else opens
    end = turn or at + timedelta(days=14)
    for part in between:
        assert hours.is_open(at + part * (end - at)) == was_open
    if turn is not None:
        assert turn > at
        assert hours.is_open(turn) != was_open
        assert hours.is_open(turn - timedelta(seconds=1)) == was_open


@given(texts, st.sampled_from(ZONES), texts, st.sampled_from(ZONES), moments)
def test_an_intersection_is_both(
    one: list[Part], zone: ZoneInfo, other: list[Part], there: ZoneInfo, at: datetime
) -> None:
    left, right = parse_schedule(written(one), zone), parse_schedule(written(other), there)
    both = left & right
    assert both.is_open(at) == (left.is_open(at) and right.is_open(at))
    opens = both.next_open(at)
    if opens is not None:
        assert left.is_open(opens)
        assert right.is_open(opens)
        earlier = [at + part / 7 * (opens - at) for part in range(7)]
        assert opens == at or not any(both.is_open(moment) for moment in earlier)


@given(texts, st.sampled_from(ZONES))
def test_over_a_year_opening_and_closing_alternate(chosen: list[Part], zone: ZoneInfo) -> None:
    hours = parse_schedule(written(chosen), zone)
    at = datetime(2026, 3, 1, tzinfo=UTC)
    seen = [at]
    while at < datetime(2026, 4, 12, tzinfo=UTC):
        turn = hours.next_close(at) if hours.is_open(at) else hours.next_open(at)
        if turn is None:
            break
        seen.append(at := turn)
    for before, after in pairwise(seen):
        assert before < after
        assert hours.is_open(before) != hours.is_open(after)
