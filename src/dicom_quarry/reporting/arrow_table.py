"""A table in the Arrow format, which pandas, polars, DuckDB, pyarrow and narwhals take without a copy of it.

The table is read from the job's record while a library takes it, a batch at a time, by the Arrow PyCapsule
interface. nanoarrow (the extra ``notebook``) builds the batches, or pyarrow where nanoarrow is not installed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

from dicom_quarry.system.extras import extra_imports

#: Rows of a batch: few enough for little memory, enough that a batch costs little.
BATCH_ROWS = 4096

_EPOCH, _FIRST_DAY = datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


class ColumnType(Enum):
    """The type of a column."""

    TEXT = "text"
    INTEGER = "64-bit integer"
    DATE = "date"
    TIME = "time in UTC"


class Column(NamedTuple):
    """A column of a table. Its values are str, int, ``datetime.date`` or a datetime with a time zone.

    None and an empty text are null.
    """

    name: str
    type: ColumnType = ColumnType.TEXT


class ArrowTable:
    """A table of a job for a library that takes Arrow streams; each of these reads the record again.

    >>> polars.DataFrame(table)  # doctest: +SKIP
    >>> pandas.DataFrame.from_arrow(table)  # doctest: +SKIP
    >>> duckdb.sql("SELECT * FROM table")  # doctest: +SKIP
    """

    def __init__(
        self, title: str, columns: Iterable[Column], read: Callable[[], Iterator[Sequence[object]]]
    ) -> None:
        """``read`` begins to read the rows, each with a value for every column."""
        self._title = title
        self._columns = _make_names_unique(columns)
        self._read = read

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self._columns)

    def __repr__(self) -> str:
        names = ", ".join(self.column_names)
        return f"<{self._title}: {names}. For a DataFrame: polars.DataFrame(table)>"

    def __arrow_c_schema__(self) -> object:
        """Return the columns as an Arrow schema. Raises StartError if neither library is installed."""
        return _load_library().schema_capsule(self._columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as an Arrow stream, always in the types of this table, as the interface allows.

        Raises StartError if neither library is installed.
        """
        return _load_library().stream_capsule(self._columns, self._batches())

    def __iter__(self) -> Iterator[dict[str, object]]:
        """Yield the rows as dicts, for a library that takes no Arrow; None is null."""
        for values in self._read():
            yield {
                column.name: _encode_text(value) if column.type is ColumnType.TEXT else value
                for column, value in zip(self._columns, values, strict=True)
            }

    def _batches(self) -> Iterator[list[list[Any]]]:
        """Yield the values of each column, of some rows at a time; the first batch is empty."""
        yield [[] for _ in self._columns]
        rows = self._read()
        while batch := list(islice(rows, BATCH_ROWS)):
            yield [
                [_ENCODERS[column.type](value) for value in values]
                for column, values in zip(self._columns, zip(*batch, strict=True), strict=True)
            ]


def _make_names_unique(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Number the columns with the name of an earlier one; in DuckDB ``id`` is the same name as ``ID``."""
    known: set[str] = set()
    unique = []
    for column in columns:
        name, number = column.name, 1
        while name.casefold() in known:
            number += 1
            name = f"{column.name}_{number}"
        known.add(name.casefold())
        unique.append(column._replace(name=name))
    return tuple(unique)


def _encode_text(value: Any) -> str | None:
    # A lone surrogate has no encoding.
    return str(value).encode("utf-8", "backslashreplace").decode() if value not in (None, "") else None


def _encode_integer(value: Any) -> int | None:
    return value  # type: ignore[no-any-return]


def _encode_date(value: Any) -> int | None:
    return None if value is None else (value - _FIRST_DAY).days


def _encode_time(value: Any) -> int | None:
    return None if value is None else (value - _EPOCH) // _MICROSECOND


_ENCODERS: dict[ColumnType, Callable[[Any], str | int | None]] = {
    ColumnType.TEXT: _encode_text,
    ColumnType.INTEGER: _encode_integer,
    ColumnType.DATE: _encode_date,
    ColumnType.TIME: _encode_time,
}


class _Nanoarrow:
    """Builds capsules with nanoarrow."""

    def __init__(self) -> None:
        import nanoarrow  # type: ignore[import-untyped]
        from nanoarrow import ipc

        self._na, self._ipc = nanoarrow, ipc
        self._types = {
            ColumnType.TEXT: nanoarrow.string(),
            ColumnType.INTEGER: nanoarrow.int64(),
            ColumnType.DATE: nanoarrow.date32(),
            ColumnType.TIME: nanoarrow.timestamp("us", "UTC"),
        }

    def _schema(self, columns: Sequence[Column]) -> Any:
        return self._na.struct({column.name: self._types[column.type] for column in columns}, nullable=False)

    def schema_capsule(self, columns: Sequence[Column]) -> object:
        return self._schema(columns).__arrow_c_schema__()

    def stream_capsule(self, columns: Sequence[Column], batches: Iterator[list[list[Any]]]) -> object:
        # nanoarrow has streams of arrays that are all in memory, and streams that it reads from a file.
        source = _ByteSource(self._messages(columns, batches))
        return self._ipc.InputStream.from_readable(source).__arrow_c_stream__()

    def _messages(self, columns: Sequence[Column], batches: Iterator[list[list[Any]]]) -> Iterator[bytes]:
        """Yield the batches as an Arrow IPC stream."""
        schema, types = self._schema(columns), [self._types[column.type] for column in columns]
        buffer = io.BytesIO()
        with self._ipc.StreamWriter.from_writable(buffer) as writer:
            for batch in batches:
                children = [
                    self._na.c_array(values, type_) for values, type_ in zip(batch, types, strict=True)
                ]
                writer.write_array(
                    self._na.c_array_from_buffers(schema, len(batch[0]), [None], children=children)
                )
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
            writer.close()
            yield buffer.getvalue()


class _ByteSource(io.RawIOBase):
    """A file whose content is made while it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        target = memoryview(buffer).cast("B")
        number = min(len(target), len(self._rest))
        target[:number] = self._rest[:number]
        self._rest = self._rest[number:]
        return number


class _Pyarrow:
    """Builds capsules with pyarrow."""

    def __init__(self) -> None:
        import pyarrow  # type: ignore[import-untyped]

        self._pa: Any = pyarrow
        self._types = {
            ColumnType.TEXT: self._pa.string(),
            ColumnType.INTEGER: self._pa.int64(),
            ColumnType.DATE: self._pa.date32(),
            ColumnType.TIME: self._pa.timestamp("us", "UTC"),
        }

    def _schema(self, columns: Sequence[Column]) -> Any:
        return self._pa.schema([(column.name, self._types[column.type]) for column in columns])

    def schema_capsule(self, columns: Sequence[Column]) -> object:
        return self._schema(columns).__arrow_c_schema__()

    def stream_capsule(self, columns: Sequence[Column], batches: Iterator[list[list[Any]]]) -> object:
        schema = self._schema(columns)
        made = (
            self._pa.record_batch(
                [self._pa.array(values, one.type) for values, one in zip(batch, schema, strict=True)],
                schema=schema,
            )
            for batch in batches
        )
        return self._pa.RecordBatchReader.from_batches(schema, made).__arrow_c_stream__()


def _load_library() -> _Nanoarrow | _Pyarrow:
    if find_spec("nanoarrow") is None and find_spec("pyarrow") is not None:
        return _Pyarrow()
    with extra_imports("notebook", "a table for a DataFrame"):
        return _Nanoarrow()
