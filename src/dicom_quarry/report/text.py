"""Words and numbers for people, and text from the archive made harmless for spreadsheets and terminals."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath

from dicom_quarry.cohort.values import visible

#: Where a spreadsheet would begin to compute: at the start of a cell, and after a semicolon, which splits
#: cells in the locales that write decimals with a comma. Japanese ones take the wide forms too.
_FORMULA = re.compile(r"(^|;)(\s*)(?=[=+\-@＝＋－＠])")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def harmless(text: str) -> str:
    """Text from the archive for a cell: control characters become visible, a formula is only shown."""
    shown = visible(text, limit=len(text))
    if shown[:1].isalnum() and ";" not in shown:
        return shown  # as nearly all are, millions of them: no formula begins like that
    return _FORMULA.sub(r"\1\2'", shown)


def harmless_path(path: PurePosixPath | str) -> str:
    """A path under the output folder, still the same path, that no spreadsheet takes for a formula."""
    text = str(path)
    return f"./{text}" if _FORMULA.match(text) else text


def human_size(size: int) -> str:
    """Bytes in decimal units, as disks are sold: ``1.2 GB``."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 99.95 else f"{value:.1f} {_UNITS[unit]}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 study``, ``2,345 instances``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def instant(when: datetime | None) -> str:
    """A moment in UTC, ISO 8601 to the second; empty for none."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else ""
