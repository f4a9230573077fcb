"""A cohort from memory: a DataFrame or a list of dicts as a table on disk, read like any other."""

from __future__ import annotations

import csv
import datetime
import numbers
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from dicom_quarry.errors import InputError, QuarryError

#: Numbers above this are not exact as a float: digits of an identifier may be lost.
_LARGEST_EXACT = 2**53

_EXPECTED = "a path, a DataFrame, or a list of dicts such as [{'EMPI': '4711', 'Accession': 'A1001'}]"


class DataFrame(Protocol):
    """A DataFrame of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""


#: A table: its path, a DataFrame, or rows as dicts.
Cohort = str | os.PathLike[str] | DataFrame | Sequence[Mapping[str, object]]


def is_path(cohort: Cohort) -> TypeGuard[str | os.PathLike[str]]:
    """Return True for the path of a table, False for a cohort from memory."""
    return isinstance(cohort, str | os.PathLike)


@contextmanager
def as_table(cohort: Cohort) -> Iterator[Path]:
    """Yield the path of a cohort's table; one from memory is written to a private folder meanwhile.

    Raises InputError for a cohort that is no table. Messages name the cohort, not that folder.
    """
    if isinstance(cohort, str) and "\n" in cohort:
        raise InputError(f"the cohort is the text of a table. Give {_EXPECTED}")
    if is_path(cohort):
        yield Path(cohort).expanduser()
        return
    header, rows, name = _read(cohort)
    with tempfile.TemporaryDirectory(prefix="quarry-cohort-") as folder:
        path = Path(folder) / "cohort.csv"
        _write(path, header, rows, name)
        try:
            yield path
        except QuarryError as error:
            error.args = tuple(str(one).replace(str(path), name) for one in error.args)
            raise


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], name: str) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(header)
        for number, row in enumerate(rows, start=1):
            places = (f"{name}, row {number}, {title}" for title in header)
            writer.writerow(map(_cell, row, places))


def _read(cohort: Any) -> tuple[list[str], Iterable[Sequence[object]], str]:
    """Return the header, the rows and the name of a cohort."""
    if hasattr(cohort, "columns") and hasattr(cohort, "itertuples"):
        if any(name is not None for name in cohort.index.names):
            cohort = cohort.reset_index()  # an identifier may be the index
        return (
            [str(name) for name in cohort.columns],
            cohort.itertuples(index=False, name=None),
            "the DataFrame",
        )
    if hasattr(cohort, "columns") and hasattr(cohort, "iter_rows"):
        return [str(name) for name in cohort.columns], cohort.iter_rows(), "the DataFrame"
    if isinstance(cohort, Mapping) or not isinstance(cohort, Iterable):
        raise InputError(f"the cohort is of the type {type(cohort).__name__}. Give {_EXPECTED}")
    records = list(cohort)
    for number, row in enumerate(records, start=1):
        if not isinstance(row, Mapping):
            raise InputError(
                f"row {number} of the cohort has the type {type(row).__name__}. Give {_EXPECTED}"
            )
    if not records:
        raise InputError(f"the cohort has no rows. Give {_EXPECTED}")
    header = list(dict.fromkeys(str(name) for row in records for name in row))
    texts = ({str(name): value for name, value in row.items()} for row in records)
    return header, ([row.get(name) for name in header] for row in texts), "the list"


def _cell(value: Any, place: str) -> str:
    """Return a value as a cell of a table; raise InputError for one that has no single text."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, numbers.Integral):
        return str(value)
    if isinstance(value, numbers.Real):
        return _number_text(float(value), place)
    if isinstance(value, bytes | bytearray | Mapping | list | tuple | set):
        raise InputError(f"{place}: the value is a {type(value).__name__}. Write one text in each cell")
    return str(value)


def _number_text(value: float, place: str) -> str:
    """Return a number; pandas makes 4711.0 of 4711 in a column with empty cells."""
    if abs(value) >= _LARGEST_EXACT:
        raise InputError(
            f"{place}: {value!r} is a rounded number, so digits are lost. Read the column as text: "
            "pandas.read_csv(..., dtype=str)"
        )
    return str(int(value)) if value.is_integer() else repr(value)
