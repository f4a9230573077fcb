"""Tables of plain text that fit a width: long names are cut in the middle, the last column is wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from dicom_quarry.system.text_safety import escape_text

#: Spaces between two columns, the least width of a column that is cut, and that of the last one.
_GAP, _LEAST, _LEAST_LAST = "  ", 10, 20

#: Characters of a cell, and lines that one is wrapped into.
_MAX_CELL, _MAX_LINES = 1000, 4


def cut_middle(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters, without its middle: the ends of a name tell more."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def wrap(text: str, width: int) -> list[str]:
    """Return a text as a few lines."""
    return textwrap.wrap(
        escape_text(text, limit=_MAX_CELL),
        width,
        max_lines=_MAX_LINES,
        placeholder=" …",
        break_on_hyphens=False,
    ) or [""]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield the lines of a table."""
    cells = [header, *([escape_text(cell, limit=_MAX_CELL) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    _fit(widths, width)
    for row in cells:
        *names, last = row
        parts = [cut_middle(name, size).ljust(size) for name, size in zip(names, widths, strict=False)]
        start = _GAP.join([*parts, ""])
        first, *more = wrap(last, max(_LEAST_LAST, width - len(start)))
        yield f"{start}{first}".rstrip()
        yield from (f"{'':<{len(start)}}{line}" for line in more)


def _fit(widths: list[int], width: int) -> None:
    """Make the widest columns narrower, until the last one has a place."""
    least_last = min(widths[-1], _LEAST_LAST)
    while sum(widths[:-1]) + len(_GAP) * (len(widths) - 1) + least_last > width:
        widest = max(range(len(widths) - 1), key=lambda at: widths[at])
        if widths[widest] <= _LEAST:
            return
        widths[widest] -= 1
