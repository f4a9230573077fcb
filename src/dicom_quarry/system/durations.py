"""Durations: parsed from settings such as ``30m``, and formatted for people."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _parse_duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"\d+[smhd]", value, re.ASCII):
        raise ValueError("write a duration such as 30m, 2h or 2d")
    return int(value[:-1]) * UNIT_SECONDS[value[-1]]


#: Seconds; written as 90s, 30m, 2h or 2d in a settings file.
Duration = Annotated[float, BeforeValidator(_parse_duration), Field(ge=0)]


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


#: Seconds from which the time of day of an end is named, too.
_CLOCK_FROM = 120.0


def format_time_left(seconds: float, now: datetime) -> str:
    """Return the time left and the time of the end, such as ``3 h 10 min left, done about Thu 03:10``.

    The weekday is left out today, and the date is added where the weekday is not enough; times are in the
    zone of ``now``.
    """
    left = f"{format_duration(seconds)} left"
    if seconds < _CLOCK_FROM:
        return left
    end = now + timedelta(seconds=seconds)
    if end.date() == now.date():
        return f"{left}, done about {end:%H:%M}"
    day = f"{end:%a}" if end - now < timedelta(days=6) else f"{end:%a %Y-%m-%d}"
    return f"{left}, done about {day} {end:%H:%M}"
