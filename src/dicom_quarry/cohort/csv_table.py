"""Text tables (CSV, TSV): encoding, delimiter, header, and rows with the line on which each begins.

A table is read strictly. A quote that is never closed would hide every row below it, so such a file is
refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicom_quarry.cohort.input_source import InputSource
from dicom_quarry.errors import InputError

#: The delimiters to try, in this order; the first is used if the header does not decide.
_DELIMITERS = (",", ";", "\t")
#: Excel's own line above a header: ``sep=;``.
_SEP = re.compile(r'"?sep=(.)"?[ \t,;]*[\r\n]*', re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A text table: CSV with any of the known delimiters."""

    source: InputSource
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    header_line: int

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.source.name

    @property
    def notes(self) -> tuple[str, ...]:
        """A note on the encoding, if it is a guess."""
        return ("read as Windows-1252, because it is not UTF-8",) if self.encoding == "cp1252" else ()

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row below the header that is not blank, with the line on which it begins."""
        for line, cells in _read_records(self.source, self.encoding, self.delimiter):
            if line > self.header_line:
                yield line, cells


def open_csv(source: InputSource, encoding: str, is_key: Callable[[str], object]) -> CsvTable:
    """Find the delimiter and the header of a table; raises InputError if there is none.

    ``is_key`` is true for headers that are keys.
    """
    with source.open() as stream:
        try:
            start = io.TextIOWrapper(stream, encoding, newline="").readline(64)
        except UnicodeError as error:
            raise _not_text_error(source) from error
    sep = _SEP.fullmatch(start)
    if sep and sep[1] not in (*_DELIMITERS, "|"):
        raise InputError(
            f"{source.name}, line 1: {sep[1]!r} cannot separate columns; write 'sep=;' or 'sep=,'"
        )
    delimiter, line, header = _find_header(source, encoding, sep[1] if sep else "", is_key)
    return CsvTable(source, encoding, delimiter, tuple(header), line)


def detect_encoding(head: bytes, is_utf8: bool) -> str:
    """Detect UTF-16 by its mark or by the NUL bytes of ASCII characters, UTF-8, or else cp1252."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8-sig" if is_utf8 else "cp1252"


def _find_header(
    source: InputSource, encoding: str, sep: str, is_key: Callable[[str], object]
) -> tuple[str, int, list[str]]:
    """Return delimiter, line and cells of the header, for the delimiter that gives the most key columns."""
    best: tuple[tuple[int, int], str, int, list[str]] | None = None
    failure: InputError | None = None
    for delimiter in sep or _DELIMITERS:
        try:
            line, cells = _read_first_record(source, encoding, delimiter, after=1 if sep else 0)
        except InputError as error:
            failure = failure or error
            continue
        score = (sum(1 for cell in cells if is_key(cell)), len(cells))
        if best is None or score > best[0]:
            best = (score, delimiter, line, cells)
    if best is None:
        raise failure or InputError(f"{source.name}: there is no header; add a line such as EMPI,Accession")
    return best[1:]


def _read_first_record(
    source: InputSource, encoding: str, delimiter: str, after: int
) -> tuple[int, list[str]]:
    for line, cells in _read_records(source, encoding, delimiter):
        # Under the wrong delimiter a blank line is a cell full of the right one.
        if line > after and "".join(cells).strip(" ,;\t\xa0"):
            return line, cells
    raise InputError(
        f"{source.name}: the file is blank; it needs a header line such as EMPI,Accession, and rows"
    )


def _read_records(source: InputSource, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, each with the physical line on which it begins."""
    line = 1
    with source.open() as stream:
        try:
            text = io.TextIOWrapper(stream, encoding, newline="")
            reader = csv.reader(text, delimiter=delimiter, strict=True)
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
