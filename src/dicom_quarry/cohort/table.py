"""Opening a table: its kind of file is detected by its first bytes, and other kinds are refused by name."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dicom_quarry.cohort.csv_table import detect_encoding, open_csv
from dicom_quarry.cohort.headers import find_keyword
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.errors import InputError

_CHUNK = 1 << 20
#: Maximum bytes of a line; a longer one is not from a table, and would fill the memory.
_LONGEST_LINE = 1 << 25

#: A letter beyond ASCII in UTF-8. In Windows-1252 these are pairs that no word has.
_UTF8_LETTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)

_AS_CSV = "save it as 'CSV UTF-8' and use that file"
_AS_XLSX = "open it in a spreadsheet program and save it as XLSX, or as 'CSV UTF-8'"
#: The beginning of a page or an XML document, in lower case; programs save such files as .xls, too.
_MARKUP = (
    "<html",
    "<!doctype",
    "<table",
    "<head",
    "<body",
    "<meta",
    "<style",
    "<?xml",
    "<?mso",
    "<!--",
    "<workbook",
)
_OTHER_FORMATS = (
    (
        b"\xd0\xcf\x11\xe0",
        "an old Excel workbook, or one with a password: save it as XLSX, without a password",
    ),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"{\\rtf", f"a text document (RTF): {_AS_CSV}"),
    (b"MIME-Version:", f"a web page in a file (MHTML): {_AS_XLSX}"),
    (b"ID;PWXL", f"a SYLK file: {_AS_XLSX}"),
    (b"\x09\x00\x04\x00", f"an old Excel workbook: {_AS_XLSX}"),
    (b"\x09\x02\x06\x00", f"an old Excel workbook: {_AS_XLSX}"),
    (b"\x09\x04\x06\x00", f"an old Excel workbook: {_AS_XLSX}"),
    (b"$FL2", "a file of SPSS: export the table as CSV"),
    (b"$FL3", "a file of SPSS: export the table as CSV"),
    (b"<stata_dta>", "a file of Stata: export the table as CSV"),
    (b"SQLite format 3\x00", "a SQLite database: export the table as CSV"),
    (b"PAR1", "a Parquet file: export the table as CSV"),
    (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "compressed with xz: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\xff\xfe\x00\x00", f"text in UTF-32: {_AS_CSV}"),
    (b"\x00\x00\xfe\xff", f"text in UTF-32: {_AS_CSV}"),
)


class InputTable(Protocol):
    """A table that can be read.

    ``name`` is the file, and the sheet if there is one, for messages. ``delimiter`` separates cells in
    messages. ``notes`` are remarks for the user on how the table was read. ``has_doubtful_cells``: even a
    cell with a plain value, or without one, may have a problem. ``hidden_columns`` are positions.
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
    @property
    def has_doubtful_cells(self) -> bool: ...  # noqa: D102
    @property
    def hidden_columns(self) -> frozenset[int]: ...  # noqa: D102

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row below the header that is not blank, with the line on which it begins."""

    def unread_parts(self) -> Iterator[str]:
        """Yield the parts of the file with values that ``rows`` leaves out, each with a remedy."""

    def cell_label(self, line: int, position: int) -> str:
        """Return the place of a cell, for messages."""

    def find_cell_problem(self, line: int, position: int, value: str) -> str:
        """Return why the value of a key's cell cannot be used; empty if it can."""


def open_table(
    path: Path, is_key: Callable[[str], object] = find_keyword, hidden_rows: str = ""
) -> tuple[InputTable, str]:
    """Open a table of any supported kind; returns it with the SHA-256 of its file.

    ``is_key`` is true for headers that are keys. ``hidden_rows`` of a workbook are read (``take``), left out
    (``skip``), or else refused. Raises InputError if the file is not a table with a header.
    """
    source = InputSource(path)
    with source.open() as stream:
        inspection = _inspect(source.name, stream)
    if inspection.head.startswith(b"PK\x03\x04"):
        # Imported late, because most tables are text.
        from dicom_quarry.cohort.xlsx_table import open_xlsx

        return open_xlsx(source, is_key, hidden_rows), inspection.digest
    if inspection.long_line_number:
        raise InputError(
            f"{source.name}, line {inspection.long_line_number}: the line is too long for a table; check "
            "that this is a CSV file"
        )
    encoding = detect_encoding(inspection.head, inspection.is_utf8 or inspection.has_utf8_letters)
    has_invalid_bytes = encoding == "utf-8-sig" and not inspection.is_utf8
    return open_csv(source, encoding, is_key, has_invalid_bytes), inspection.digest


@dataclass(slots=True)
class _Inspection:
    """Findings of one pass over the bytes.

    ``is_utf8``: all of them are UTF-8; ``has_utf8_letters``: some of them are letters of UTF-8 beyond ASCII.
    ``long_line_number`` is the first line that is too long, or 0.
    """

    head: bytes = b""
    digest: str = ""
    is_utf8: bool = True
    has_utf8_letters: bool = False
    long_line_number: int = 0


def _inspect(name: str, stream: BinaryIO) -> _Inspection:
    inspection, digest, lines = _Inspection(), hashlib.sha256(), _LongLineFinder()
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := stream.read(_CHUNK):
        inspection.head = inspection.head or chunk[:4096]
        digest.update(chunk)
        lines.feed(chunk)
        inspection.is_utf8 = inspection.is_utf8 and _is_decodable(decoder, chunk, final=False)
        if not (inspection.has_utf8_letters or chunk.isascii()):
            inspection.has_utf8_letters = bool(_UTF8_LETTER.search(chunk))
    inspection.is_utf8 = inspection.is_utf8 and _is_decodable(decoder, b"", final=True)
    inspection.digest, inspection.long_line_number = digest.hexdigest(), lines.long_line_number
    if not inspection.head:
        raise InputError(
            f"{name}: the file is empty; it needs a header line such as EMPI,Accession, and rows"
        )
    for magic, what in _OTHER_FORMATS:
        if inspection.head.startswith(magic):
            raise InputError(f"{name}: this is {what}")
    if _decode_start(inspection.head).startswith(_MARKUP):
        raise InputError(
            f"{name}: this is a web page or an XML document, which some programs save as .xls: {_AS_XLSX}"
        )
    return inspection


def _decode_start(head: bytes) -> str:
    """Return the first characters in lower case, without a mark and spaces."""
    is_wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head[:512].decode("utf-16" if is_wide else "utf-8", "replace")
    return text.lstrip("\ufeff \t\r\n").casefold()


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
