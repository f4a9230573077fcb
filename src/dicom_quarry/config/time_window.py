"""Time windows: the weekly hours in which an archive may be queried, in a time zone. Pure.

::

    windows = part, {",", part}          "Mon-Fri 19:00-07:00, Sat-Sun 00:00-24:00"
    part    = [days], from, "-", until   without days: every day
    days    = day | day, "-", day        Mon Tue Wed Thu Fri Sat Sun; "Fri-Mon" passes Sunday

A part whose end is not later than its start ends on the next day; its days are those on which it starts. The
wall clock also decides when summer time begins or ends: a window from 01:00 is open in both hours named 01:00
in autumn, and one from 02:30 opens at 03:00 in the spring night that has no 02:30.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_PART = re.compile(
    r"(?:(?P<first>[A-Z][a-z]{2})(?:-(?P<last>[A-Z][a-z]{2}))?\s+)?"
    r"(?P<start>\d{1,2}:\d{2})\s*-\s*(?P<end>\d{1,2}:\d{2})"
)
_DAY = 24 * 60
_WEEK = 7 * _DAY

#: Days within which a window opens if it ever does: a week, and a second one, as a night may lack its hour.
_HORIZON = 15

#: The host's time zone. The variable TZ is ignored, as any user could set it.
_LOCALTIME = "/etc/localtime"


@dataclass(frozen=True, slots=True)
class WeeklyWindow:
    """Weekly spans in minutes since Monday 00:00, half open, by the wall clock of a time zone."""

    spans: tuple[tuple[int, int], ...]
    zone: tzinfo

    def is_open(self, at: datetime) -> bool:
        """Return whether ``at`` (aware) is in a span."""
        local = at.astimezone(self.zone)
        minute = local.weekday() * _DAY + local.hour * 60 + local.minute
        return any(start <= minute < end for start, end in self.spans)

    def possible_changes(self, after: datetime) -> Iterator[datetime]:
        """Yield every moment of the next two weeks at which ``is_open`` may change, in UTC, unordered."""
        edges = {edge % _WEEK for span in self.spans for edge in span}
        today = after.astimezone(self.zone).date()
        for day in (today + timedelta(days=ahead) for ahead in range(-1, _HORIZON + 1)):
            for edge in edges:
                if edge // _DAY == day.weekday():
                    wall = datetime.combine(day, time(edge % _DAY // 60, edge % 60), self.zone)
                    yield wall.replace(fold=0).astimezone(UTC)
                    yield wall.replace(fold=1).astimezone(UTC)
        yield from self._clock_changes(after.astimezone(UTC))

    def _clock_changes(self, after: datetime) -> Iterator[datetime]:
        days = [after.replace(microsecond=0) + timedelta(days=ahead) for ahead in range(_HORIZON + 1)]
        for low, high in pairwise(days):
            if self._offset(low) == self._offset(high):
                continue
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=(high - low) // timedelta(seconds=1) // 2)
                low, high = (middle, high) if self._offset(middle) == self._offset(low) else (low, middle)
            yield high

    def _offset(self, at: datetime) -> timedelta | None:
        return at.astimezone(self.zone).utcoffset()


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule: open while all of its windows are open; always open without windows."""

    windows: tuple[WeeklyWindow, ...] = ()

    def __and__(self, other: Schedule) -> Schedule:
        return Schedule(self.windows + other.windows)

    def is_open(self, at: datetime) -> bool:
        """Return whether ``at`` (aware) is in all windows."""
        return all(window.is_open(at) for window in self.windows)

    def next_open(self, at: datetime) -> datetime | None:
        """Return ``at`` if open then, else the next opening; None if there is none within two weeks."""
        return at if self.is_open(at) else self._next_change(at, self.is_open)

    def next_close(self, at: datetime) -> datetime | None:
        """Return ``at`` if closed then, else the next closing; None if there is none within two weeks."""
        return self._next_change(at, lambda then: not self.is_open(then)) if self.is_open(at) else at

    def format_time(self, at: datetime) -> str:
        """Return a moment of the coming week in the time zone of the windows, such as ``Mon 19:00``."""
        zone = self.windows[0].zone if self.windows else UTC
        local = at.astimezone(zone)
        name = f" ({zone.key})" if isinstance(zone, ZoneInfo) and zone.key else ""
        return f"{DAYS[local.weekday()]} {local:%H:%M}{name}"

    def _next_change(self, after: datetime, has_changed: Callable[[datetime], bool]) -> datetime | None:
        moments = {moment for window in self.windows for moment in window.possible_changes(after)}
        return next((moment for moment in sorted(moments) if moment > after and has_changed(moment)), None)


def parse_schedule(text: str, zone: tzinfo) -> Schedule:
    """Parse windows in the grammar above; raise ValueError with the expected form."""
    minutes: list[tuple[int, int]] = []
    for part in text.split(","):
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"'{part.strip()}' is not a window: write 19:00-07:00, or Mon-Fri 19:00-07:00")
        start, end = _parse_minute(found["start"]), _parse_minute(found["end"])
        if start in (end, _DAY):
            raise ValueError(f"'{part.strip()}' is empty: write a whole day as 00:00-24:00")
        if end < start:
            end += _DAY
        for day in _parse_days(found["first"], found["last"]):
            minutes += _wrap_at_week_end(day * _DAY + start, day * _DAY + end)
    return Schedule((WeeklyWindow(tuple(sorted(minutes)), zone),))


def _parse_minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    total = int(hour) * 60 + int(minute)
    if total > _DAY or int(minute) > 59:
        raise ValueError(f"'{text}' is not a time of day: write 00:00 to 24:00")
    return total


def _parse_days(first: str | None, last: str | None) -> range | list[int]:
    if first is None:
        return range(7)
    for name in (first, last or first):
        if name not in DAYS:
            raise ValueError(f"'{name}' is not a day: write {', '.join(DAYS)}")
    start, end = DAYS.index(first), DAYS.index(last or first)
    return [day % 7 for day in range(start, end + 1 + 7 * (end < start))]


def _wrap_at_week_end(start: int, end: int) -> list[tuple[int, int]]:
    return [(start, end)] if end <= _WEEK else [(start, _WEEK), (0, end - _WEEK)]


def load_time_zone(name: str | None) -> tzinfo:
    """Return the time zone of this name, or else the host's; raise ValueError for an unknown name."""
    if name is None:
        try:
            with open(_LOCALTIME, "rb") as file:  # noqa: PTH123 - ZoneInfo reads a stream
                return ZoneInfo.from_file(file)
        except FileNotFoundError:
            return UTC  # as the C library does
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is not a time zone: write one such as America/New_York") from error
