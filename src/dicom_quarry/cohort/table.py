"""Opening a table: its kind of file is detected by its first bytes, and other kinds are refused by name."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dicom_quarry.cohort.columns import find_keyword
from dicom_quarry.cohort.csv_table import detect_encoding, open_csv
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.errors import InputError

_CHUNK = 1 << 20
#: Maximum bytes of a line; a longer one is not from a table, and would fill the memory.
_LONGEST_LINE = 1 << 20

_AS_CSV = "save it as 'CSV UTF-8' and use that file"
_OTHER_FORMATS = (
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel workbook, or one with a password: save it as XLSX, without a password",
    ),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"\xff\xfe\x00\x00", f"text in UTF-32: {_AS_CSV}"),
    (b"\x00\x00\xfe\xff", f"text in UTF-32: {_AS_CSV}"),
)


class InputTable(Protocol):
    """A table that can be read.

    ``name`` is the file, and the sheet if there is one, for messages. ``delimiter`` separates cells in
    messages. ``notes`` are remarks for the user on how the table was read.
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
        """Yield every row below the header that is not blank, with the line on which it begins."""


def open_table(path: Path, is_key: Callable[[str], object] = find_keyword) -> tuple[InputTable, str]:
    """Open a table of any supported kind; returns it with the SHA-256 of its file.

    ``is_key`` is true for headers that are keys. Raises InputError if the file is not a table with a header.
    """
    source = InputSource(path)
    with source.open() as stream:
        inspection = _inspect(source.name, stream)
    if inspection.head.startswith(b"PK\x03\x04"):
        # Imported late, because most tables are text.
        from dicom_quarry.cohort.xlsx_table import open_xlsx

        return open_xlsx(source), inspection.digest
    if inspection.long_line_number:
        raise InputError(
            f"{source.name}, line {inspection.long_line_number}: the line is too long for a table; check "
            "that this is a CSV file"
        )
    return open_csv(source, detect_encoding(inspection.head, inspection.is_utf8), is_key), inspection.digest


@dataclass(slots=True)
class _Inspection:
    """Findings of one pass over the bytes; ``long_line_number`` is the first line that is too long, or 0."""

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
    """A search for a line that is too long, without splitting the bytes into lines."""

    def __init__(self) -> None:
        self.long_line_number = 0
        self._line_count = 0
        self._open_length = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, fewer than the limit: only a line that began before can exceed it."""
        end = b"\n" if b"\n" in chunk else b"\r"
        first = chunk.find(end)
        self._open_length += len(chunk) if first < 0 else first
        if self._open_length >= _LONGEST_LINE:
            self.long_line_number = self.long_line_number or self._line_count + 1
        if first >= 0:
            self._line_count += chunk.count(end)
            self._open_length = len(chunk) - chunk.rfind(end) - 1
