"""Layouts: names for the path patterns that most people want."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dicom_quarry.errors import ConfigError

#: The patterns by the names of their layouts; the first is the default.
LAYOUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "niffler": "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm",
        "patient/date-modality": "{00100020}/{00080020}-{00080060}/{0020000E}/{00080018}.dcm",
        "accession": "{00080050}/{0020000E}/{00080018}.dcm",
    }
)


def choose_filepath(filepath: str | None, layout: str | None) -> str:
    """Return the pattern that the options ``--filepath`` and ``--layout`` choose. Raises ConfigError."""
    chosen = resolve_layout({"filepath": filepath, "layout": layout})["filepath"]
    return LAYOUTS["niffler"] if chosen is None else str(chosen)


def describe_filepath(filepath: str) -> str:
    """Return the option that chooses a pattern: ``--layout NAME`` for that of a layout."""
    known = [name for name, pattern in LAYOUTS.items() if pattern == filepath]
    return f"--layout {known[0]}" if known else f"--filepath '{filepath}'"


def resolve_layout(values: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """Return the settings of one source with ``layout`` replaced by its ``filepath``. Raises ConfigError.

    ``source`` is the file of the settings; empty for options of a command.
    """
    resolved = dict(values)
    layout = resolved.pop("layout", None)
    if layout is None:
        return resolved
    names = ("layout", "filepath") if source else ("--layout", "--filepath")
    prefix = f"{source}: " if source else ""
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ConfigError(
            f"{prefix}{names[0]} '{layout}' is unknown: write one of {', '.join(LAYOUTS)}, or a pattern of "
            f"your own with {names[1]}"
        )
    if resolved.get("filepath") is not None:
        raise ConfigError(f"{prefix}{names[0]} and {names[1]} both name the files: give one of them")
    return {**resolved, "filepath": LAYOUTS[layout]}
