"""Formatting of numbers, times and paths for people and spreadsheets.

:func:`escape_cell` and :func:`escape_path` make text from the archive safe: no spreadsheet reads it as a
formula.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath

from dicom_quarry.system.csv_cells import FORMULA_START
from dicom_quarry.system.csv_cells import escape_cell as escape_cell

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def escape_path(path: PurePosixPath | str) -> str:
    """Return an equivalent path that no spreadsheet reads as a formula."""
    text = str(path)
    return f"./{text}" if FORMULA_START.match(text) else text


def format_size(size: int) -> str:
    """Format bytes in decimal units: ``1.2 GB``."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.95 else f"{value:.1f} {_UNITS[unit]}"


def format_timestamp(when: datetime | None) -> str:
    """Format a time in UTC, ISO 8601 to the second; empty for None."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""
