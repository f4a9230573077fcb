"""The style sheet and the script of the pages."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from dicom_quarry.api import pages


@cache
def style_sheet() -> str:
    """Return the style sheet that reports have, and what the pages have besides."""
    return f"{pages.style_sheet()}\n{_read('web.css')}"


@cache
def live_script() -> str:
    """Return the script that updates a page."""
    return _read("live.js")


def _read(name: str) -> str:
    return (files("dicom_quarry.web") / "static" / name).read_text(encoding="utf-8")
