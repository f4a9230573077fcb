"""The rows of a table that cannot be used: as one message, and as lines of a CSV to work through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dicom_quarry.model import Request

#: How many notes, and how many unusable rows, are told one by one.
MAX_SHOWN = 20


def describe_row_errors(requests: Iterable[Request]) -> str:
    """The rows that cannot be used as one message: the first few and a count; empty where there is none."""
    bad: list[Request] = []
    total = wrong = 0
    for request in requests:
        total += 1
        if request.problem:
            wrong += 1
            if len(bad) < MAX_SHOWN:
                bad.append(request)
    return _message(bad, wrong, total) if wrong else ""


def _message(bad: Sequence[Request], wrong: int, total: int) -> str:
    lines = [f"{wrong:,} of {total:,} rows cannot be used:"]
    lines += [f"  row {one.row}, line {one.line}: {one.problem}" for one in bad]
    if wrong > len(bad):
        lines.append(f"  … and {wrong - len(bad):,} more")
    return "\n".join(lines)


def row_error_lines(requests: Iterable[Request], columns: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """The rows that cannot be used, all of them, for the csv module: a header, then one line each.

    With the table's ``columns`` the user's own cells stand at the right, to be corrected there.
    """
    yield ("row", "line", "problem", *columns)
    for one in requests:
        if one.problem:
            yield (str(one.row), str(one.line), one.problem, *one.cells[: len(columns)])
