"""Where a table comes from: a file, or standard input, which is put aside since a table is read twice."""

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
