"""Spaces between a quote and a delimiter, as in ``1, "2" ,3``: csv would keep the quote as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

_SPACE = " \xa0\u2009\u202f"


@lru_cache(maxsize=8)
def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Return patterns for a delimiter: a plain line, the beginning, the end and the rest of a cell."""
    space = _SPACE + ("" if delimiter == "\t" else "\t")
    end = rf"(?:{re.escape(delimiter)}|\r?\n|\r|\Z)"
    cell = rf'(?:"[^"]*+(?:""[^"]*+)*+"|[^"{re.escape(delimiter)}\r\n]*+)'
    return (
        re.compile(rf"{cell}(?:{re.escape(delimiter)}{cell})*+(?:\r?\n|\r)?"),
        re.compile(rf'([{space}]*)"'),
        re.compile(rf'([^"]*+(?:""[^"]*+)*+)("?)([{space}]*)({end}?)'),
        re.compile(rf"[^{re.escape(delimiter)}\r\n]*{end}"),
    )


def trim_quoted_cells(lines: Iterable[str], delimiter: str) -> Iterator[str]:
    """Yield the lines of a table without the spaces around the quotes of its cells.

    A quote inside a cell, and a cell whose quote is followed by text, stay as they are.
    """
    plain = _patterns(delimiter)[0]
    is_open = False
    for line in lines:
        if not is_open and ('"' not in line or plain.fullmatch(line)):
            yield line
            continue
        trimmed, is_open = _trim_line(line, delimiter, is_open)
        yield trimmed


def _trim_line(line: str, delimiter: str, is_open: bool) -> tuple[str, bool]:
    """Return a line without these spaces, and True if a quoted cell is still open at its end."""
    _, begin, quoted, rest = _patterns(delimiter)
    parts: list[str] = []
    at = 0
    while at < len(line):
        opening = None if is_open else begin.match(line, at)
        start = opening.end() if opening else at
        cell = quoted.match(line, start) if opening or is_open else None
        if cell is None or (cell[2] and not cell[4] and cell.end() < len(line)):
            # No quoted cell, or text follows its closing quote: the csv module decides on the cell as it is.
            found = rest.match(line, cell.end() if cell else at)
            end = found.end() if found else len(line)
            parts.append(line[at:end])
            at, is_open = max(end, at + 1), False
            continue
        parts.append(f"{'' if is_open else chr(34)}{cell[1]}{cell[2]}{cell[4]}")
        at, is_open = (cell.end(), False) if cell[2] else (len(line), True)
    return "".join(parts), is_open
