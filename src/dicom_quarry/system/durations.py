"""Durations: parsed from settings such as ``30m``, and formatted for people."""

from __future__ import annotations

import re
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
