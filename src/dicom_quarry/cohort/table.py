"""Where a table comes from: a file, or standard input, which is put aside since a table is read twice."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dicom_quarry.cohort.columns import find_keyword
from dicom_quarry.cohort.csv_table import detect_encoding, open_csv
from dicom_quarry.errors import InputError

#: The path that means standard input.
STANDARD_INPUT = Path("-")


class InputSource:
    """Bytes that can be read from their beginning as often as needed; ``name`` is for messages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool: BinaryIO | None = None
        self.name = str(path)
        if path == STANDARD_INPUT:
            self.name = "standard input"
            self._spool = spool_to_disk(sys.stdin.buffer)
            return
        with self.translate_errors():
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(f"{path}: not a regular file; give the path of a table, or - and pipe it in")

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A stream of its own from the beginning; what the system cannot read raises InputError."""
        with self.translate_errors():
            stream = self._path.open("rb") if self._spool is None else _SpoolReader.open_buffered(self._spool)
            with stream:
                yield stream

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """The system's errors as InputError."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.name}: cannot be read ({reason})") from error


def spool_to_disk(stream: BinaryIO) -> BinaryIO:
    """A private copy on disk without a name, so that nothing of it is left behind, whatever happens.

    Raises InputError.
    """
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the source)
        shutil.copyfileobj(stream, spool)
        spool.flush()
    except (OSError, ValueError) as error:
        raise InputError(f"standard input: cannot be put aside to be read twice ({error})") from error
    return spool


class _SpoolReader(io.RawIOBase):
    """A spool seen from its beginning, whoever else reads it: every view has its own position."""

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self._position = 0

    @classmethod
    def open_buffered(cls, spool: BinaryIO) -> BinaryIO:
        """A buffered view."""
        return io.BufferedReader(cls(spool), 1 << 16)  # type: ignore[type-var]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = os.fstat(self._spool.fileno()).st_size
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}[whence]
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = os.preadv(self._spool.fileno(), [buffer], self._position)
        self._position += count
        return count


_CHUNK = 1 << 20
#: What a line may hold, in bytes; more is some other kind of file, and would fill the memory.
_LONGEST_LINE = 1 << 20

_AS_CSV = "save it as 'CSV UTF-8' and give that file"
_OTHER_FORMATS = (
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook, or one with a password: save it as XLSX without one"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"\xff\xfe\x00\x00", f"text in UTF-32: {_AS_CSV}"),
    (b"\x00\x00\xfe\xff", f"text in UTF-32: {_AS_CSV}"),
)


class InputTable(Protocol):
    """A table that can be read.

    ``name`` is where it stands, for messages. ``delimiter`` is what stands between its cells, for showing
    them. ``notes`` tell what a user should know of how it is read.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def header(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def header_line(self) -> int: ...  # noqa: D102
    @property
    def delimiter(self) -> str: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row below the header that is not blank, with the line where it begins."""


def open_table(path: Path, is_key: Callable[[str], object] = find_keyword) -> tuple[InputTable, str]:
    """Find out how a table is written; returns it with the SHA-256 of its file.

    ``knows`` is true for headers that are keys. Raises InputError where it is not a table with a header.
    """
    source = InputSource(path)
    with source.open() as stream:
        inspection = _inspect(source.name, stream)
    if inspection.head.startswith(b"PK\x03\x04"):
        # Imported here: most tables are text.
        from dicom_quarry.cohort.xlsx_table import open_xlsx

        return open_xlsx(source), inspection.digest
    if inspection.long_line_number:
        raise InputError(
            f"{source.name}, line {inspection.long_line_number}: the line is longer than a table's; is this a CSV file?"
        )
    return open_csv(source, detect_encoding(inspection.head, inspection.is_utf8), is_key), inspection.digest


@dataclass(slots=True)
class _Inspection:
    """What one pass over the bytes tells; ``long_line`` is the first that is too long, 0 if none is."""

    head: bytes = b""
    digest: str = ""
    is_utf8: bool = True
    long_line_number: int = 0


def _inspect(name: str, stream: BinaryIO) -> _Inspection:
    inspection, digest, lines = _Inspection(), hashlib.sha256(), _LongLineFinder()
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := stream.read(_CHUNK):
        inspection.head = inspection.head or chunk[:4096]
        digest.update(chunk)
        lines.feed(chunk)
        inspection.is_utf8 = inspection.is_utf8 and _is_decodable(decoder, chunk, final=False)
    inspection.is_utf8 = inspection.is_utf8 and _is_decodable(decoder, b"", final=True)
    inspection.digest, inspection.long_line_number = digest.hexdigest(), lines.long_line_number
    if not inspection.head:
        raise InputError(
            f"{name}: the file is empty; it needs a header line such as EMPI,Accession, and rows"
        )
    for magic, what in _OTHER_FORMATS:
        if inspection.head.startswith(magic):
            raise InputError(f"{name}: this is {what}")
    return inspection


def _is_decodable(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


class _LongLineFinder:
    """Looks for a line that is too long without making lines."""

    def __init__(self) -> None:
        self.long_line_number = 0
        self._line_count = 0
        self._open_length = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes; no line inside them can be too long, only one that they go on with."""
        end = b"\n" if b"\n" in chunk else b"\r"
        first = chunk.find(end)
        self._open_length += len(chunk) if first < 0 else first
        if self._open_length >= _LONGEST_LINE:
            self.long_line_number = self.long_line_number or self._line_count + 1
        if first >= 0:
            self._line_count += chunk.count(end)
            self._open_length = len(chunk) - chunk.rfind(end) - 1
