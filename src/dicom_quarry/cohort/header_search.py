"""Finding the header of a table: its first line, or the one line below titles that has the name of a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from dicom_quarry.cohort.headers import RANGE_COLUMNS, find_keyword
from dicom_quarry.cohort.similar_headers import find_similar_keyword
from dicom_quarry.errors import InputError

#: Lines that may contain the header: titles, authors and dates of an export are above it.
_SEARCHED_LINES = 30
#: Digits of an identifier or a date: a line with them is data.
_DATA = re.compile("[0-9]{3}")
_DIGIT = re.compile("[0-9]")
#: A cell that may be an identifier: one word with digits.
_IDENTIFIER = re.compile(r"(?=\S*[0-9])[\w.-]+")


class SeveralHeaders(InputError):
    """Several lines may be the header, or a row is above it; the message has no file."""


Line = tuple[int, list[str]]
IsKey = Callable[[str], object]


def find_header(lines: Iterable[Line], is_key: IsKey) -> tuple[Line, tuple[str, ...]] | None:
    """Return the header of a table, from its lines that are not blank, with notes; None without a line.

    The first line is the header, unless it has no key and exactly one later line has. Raises SeveralHeaders.
    """
    lines = iter(lines)
    if (first := next(lines, None)) is None:
        return None
    # The next lines are read only if they may be the header: they may be damaged.
    if count_keys(first[1], is_key) or _is_doubtful(first[1], 2):
        return first, ()
    others = list(islice(lines, _SEARCHED_LINES))
    least = min(2, max(_count_filled(cells) for _, cells in (first, *others)))
    if _is_doubtful(first[1], least):
        return first, ()
    found = [one for one in others if count_keys(one[1], is_key) and not _is_data(one[1])]
    if not found:
        found = [one for one in others if _is_doubtful(one[1], least) and not _is_data(one[1])]
    if len(found) > 1:
        numbers = " and ".join(str(line) for line, _ in found[:2])
        raise SeveralHeaders(
            f"lines {numbers} both look like a header, and line {first[0]}, which is the first, does not; "
            "remove the lines above the header, and every line that is neither the header nor a row"
        )
    if not found:
        return first, ()
    line, header = found[0]
    keys = [at for at, cell in enumerate(header) if is_key(cell)]
    for above, cells in (first, *others):
        if above < line and keys and all(at < len(cells) and _DIGIT.search(cells[at]) for at in keys):
            raise SeveralHeaders(
                f"line {above} is above the header in line {line}, and looks like a row; move it below the "
                "header, or remove it"
            )
    return found[0], (f"the header is in line {line}; the lines above it are not read",)


def count_keys(cells: Sequence[str], is_key: IsKey) -> int:
    """Count the cells that are names of keys; one end of a range alone is none."""
    names = [cell for cell in cells if is_key(cell)]
    ends = [cell for cell in names if find_keyword(cell) in RANGE_COLUMNS]
    is_range = len({find_keyword(cell) for cell in ends}) == len(RANGE_COLUMNS)
    return len(names) if is_range else len(names) - len(ends)


def count_doubtful(cells: Sequence[str]) -> int:
    """Count the cells that resemble the name of a key."""
    return sum(1 for cell in cells if find_similar_keyword(cell))


def _is_doubtful(cells: Sequence[str], least: int) -> bool:
    """Return whether a line with this many cells may be a header; with fewer it is a title."""
    return _count_filled(cells) >= least and bool(count_doubtful(cells))


def _count_filled(cells: Sequence[str]) -> int:
    return sum(1 for cell in cells if cell.strip())


def _is_data(cells: Sequence[str]) -> bool:
    return any(_DATA.search(cell) for cell in cells)


def find_data_above(lines: Iterable[Line], header_line: int) -> str:
    """Describe the first line above the header that may be a row, not a title; empty if there is none."""
    for line, cells in lines:
        if line >= header_line:
            break
        if any(_IDENTIFIER.fullmatch(cell.strip()) for cell in cells):
            return (
                f"line {line} is above the header, and may be a row; move it below the header, or delete it"
            )
    return ""
