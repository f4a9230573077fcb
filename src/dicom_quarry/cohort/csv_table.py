"""Text tables (CSV, TSV): encoding, delimiter, header, and rows with the line on which each begins.

A table is read strictly. A quote that is never closed would hide every row below it, so such a file is
refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from dicom_quarry.cohort.csv_quotes import trim_quoted_cells
from dicom_quarry.cohort.header_search import (
    IsKey,
    Line,
    SeveralHeaders,
    count_doubtful,
    count_keys,
    find_data_above,
    find_header,
)
from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.errors import InputError
from dicom_quarry.system.text_safety import escape_text

#: The delimiters to try, in this order; the first is used if the header does not decide.
_DELIMITERS = (",", ";", "\t", "|")
#: Excel's own line above a header: ``sep=;``.
_SEP = re.compile(r'"?sep=(.)"?[ \t,;]*[\r\n]*', re.IGNORECASE | re.DOTALL)

#: Characters in a cell, as in a workbook: a column of the user's own may have whole documents.
csv.field_size_limit(1 << 24)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A text table: CSV with any of the known delimiters."""

    source: InputSource
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    header_line: int
    header_notes: tuple[str, ...] = ()
    hidden_columns: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.source.name

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the place of the header, and on the encoding, if they are guesses."""
        guess = ("read as Windows-1252, because it is not UTF-8",) if self.encoding == "cp1252" else ()
        return (*self.header_notes, *guess)

    @property
    def has_doubtful_cells(self) -> bool:
        """False: a plain value is ASCII, which every encoding has alike."""
        return False

    def unread_parts(self) -> Iterator[str]:
        """Yield a line above the header that may be a row."""
        if self.header_notes:
            records = _read_records(self.source, self.encoding, self.delimiter)
            yield from filter(None, [find_data_above(records, self.header_line)])

    def cell_label(self, line: int, position: int) -> str:  # noqa: ARG002 (the protocol)
        """Return the column of a cell, for messages."""
        return f"column '{escape_text(self.header[position].strip())}'"

    def find_cell_problem(self, line: int, position: int, value: str) -> str:  # noqa: ARG002 (the protocol)
        """Refuse letters beyond ASCII whose encoding is a guess."""
        if value.isascii() or self.encoding != "cp1252":
            return ""
        letter = next(char for char in value if not char.isascii())
        return (
            f"\"{escape_text(value)}\" contains '{letter}', but the file is not UTF-8, so this letter may be "
            "another one; save it as 'CSV UTF-8' and use that file"
        )

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row below the header that is not blank, with the line on which it begins."""
        for line, cells in _read_records(self.source, self.encoding, self.delimiter):
            if line > self.header_line:
                yield line, cells


def open_csv(source: InputSource, encoding: str, is_key: IsKey, has_invalid_bytes: bool = False) -> CsvTable:
    """Find the delimiter and the header of a table; raises InputError if there is none.

    ``is_key`` is true for headers that are keys. ``has_invalid_bytes``: some bytes are not of this encoding.
    """
    errors = "surrogateescape" if has_invalid_bytes else "strict"
    with source.open() as stream:
        try:
            start = io.TextIOWrapper(stream, encoding, errors, newline="").readline(64)
        except UnicodeError as error:
            raise _not_text_error(source) from error
    sep = _SEP.fullmatch(start)
    if sep and sep[1] not in _DELIMITERS:
        raise InputError(
            f"{source.name}, line 1: {sep[1]!r} cannot separate columns; write 'sep=;' or 'sep=,'"
        )
    delimiter, (line, header), notes = _find_header(source, encoding, errors, sep[1] if sep else "", is_key)
    table = CsvTable(source, encoding, delimiter, tuple(header), line, notes)
    if has_invalid_bytes:
        _refuse_invalid_bytes(table)
    return table


def detect_encoding(head: bytes, is_utf8: bool) -> str:
    """Detect UTF-16 by its mark or by the NUL bytes of ASCII characters, UTF-8, or else cp1252."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8-sig" if is_utf8 or head.startswith(codecs.BOM_UTF8) else "cp1252"


def _refuse_invalid_bytes(table: CsvTable) -> NoReturn:
    """Raise the error on the first cell with a byte that is not UTF-8."""
    records = _read_records(table.source, table.encoding, table.delimiter, errors="surrogateescape")
    for line, cells in records:
        for position, cell in enumerate(cells):
            if invalid := next((char for char in cell if "\udc80" <= char <= "\udcff"), ""):
                column = table.header[position].strip() if position < len(table.header) else ""
                shown = f"column '{escape_text(column)}'" if line > table.header_line else "the header"
                raise InputError(
                    f"{table.name}, line {line}, {shown}: the byte 0x{ord(invalid) - 0xDC00:02X} is not "
                    "UTF-8, although the rest of the file is; correct this character, or export the table "
                    "again as 'CSV UTF-8'"
                )
    raise _not_text_error(table.source)


def _find_header(
    source: InputSource, encoding: str, errors: str, sep: str, is_key: IsKey
) -> tuple[str, Line, tuple[str, ...]]:
    """Return delimiter, header and notes, for the delimiter that gives the most key columns."""
    best: tuple[tuple[int, int, int], str, Line, tuple[str, ...]] | None = None
    failure: InputError | None = None
    for delimiter in sep or _DELIMITERS:
        try:
            header, notes = _find_header_of(
                _read_records(source, encoding, delimiter, errors), source.name, 1 if sep else 0, is_key
            )
        except InputError as error:
            failure = failure or error
            continue
        cells = header[1]
        score = (count_keys(cells, is_key), count_doubtful(cells), len(cells))
        if best is None or score > best[0]:
            best = (score, delimiter, header, notes)
    if best is None:
        raise failure or InputError(f"{source.name}: there is no header; add a line such as EMPI,Accession")
    keys, doubtful, _ = best[0]
    # A wrong delimiter gives one cell, which may resemble a key.
    if failure and not (keys if isinstance(failure, SeveralHeaders) else keys + doubtful):
        raise failure
    return best[1:]


def _find_header_of(
    records: Iterator[Line], name: str, after: int, is_key: IsKey
) -> tuple[Line, tuple[str, ...]]:
    # Under the wrong delimiter a blank line is a cell full of the right one.
    filled = ((line, cells) for line, cells in records if line > after and "".join(cells).strip(" ,;|\t\xa0"))
    try:
        found = find_header(filled, is_key)
    except SeveralHeaders as error:
        raise SeveralHeaders(f"{name}: {error}") from error
    if found is None:
        raise InputError(
            f"{name}: the file is blank; it needs a header line such as EMPI,Accession, and rows"
        )
    return found


def _read_records(
    source: InputSource, encoding: str, delimiter: str, errors: str = "strict"
) -> Iterator[Line]:
    """Yield the records that are not blank, each with the physical line on which it begins."""
    line = 1
    with source.open() as stream:
        try:
            text = io.TextIOWrapper(stream, encoding, errors, newline="")
            reader = csv.reader(trim_quoted_cells(text, delimiter), delimiter=delimiter, strict=True)
            for cells in reader:
                if any(cells) and not "".join(cells).isspace():
                    yield line, cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(f"{source.name}, line {line}: {_describe_csv_error(error)}") from error
        except UnicodeError as error:  # text is decoded in blocks, so its line is not known
            raise _not_text_error(source) from error


def _describe_csv_error(error: csv.Error) -> str:
    """Translate an error of the csv module for the user."""
    if "unexpected end" in str(error):
        return "a quote begins on this line and is never closed; close it, or remove it"
    if "field larger" in str(error):
        return "a cell that begins on this line is too long; look for a quote that is never closed"
    return "there is text after a closing quote; write each quote inside a cell twice"


def _not_text_error(source: InputSource) -> InputError:
    return InputError(
        f"{source.name}: neither UTF-8, UTF-16 nor Windows-1252 text; save it as 'CSV UTF-8' and use "
        "that file"
    )
