"""Opening the user's table: encoding, delimiter, and rows that know the line where they begin.

The file is passed over twice, so that a table of a million rows needs no more memory than one row: once for
its digest and its encoding, once for its rows. It is read strictly: a quote that is opened and never closed
would swallow every row below it, so such a file is refused.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from dicom_quarry.cohort.columns import keyword_of
from dicom_quarry.errors import InputError

#: The delimiters that are tried, in this order; the first wins where the header decides nothing.
_DELIMITERS = (",", ";", "\t")
#: Excel's own line above a header: ``sep=;``.
_SEP = re.compile(r'"?sep=(.)"?[ \t,;]*[\r\n]*', re.IGNORECASE | re.DOTALL)
#: What a line may hold; more is some other kind of file, and would fill the memory.
_LONGEST_LINE = 1 << 20
_CHUNK = 1 << 20

_AS_CSV = "save it as 'CSV UTF-8' and give that file"
_OTHER_FORMATS = (
    (b"PK\x03\x04", f"an Excel workbook or a zip archive: {_AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", f"an old Excel workbook: {_AS_CSV}"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"\xff\xfe\x00\x00", f"text in UTF-32: {_AS_CSV}"),
    (b"\x00\x00\xfe\xff", f"text in UTF-32: {_AS_CSV}"),
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be read: its header is known, its rows are still in the file."""

    path: Path
    encoding: str
    delimiter: str
    header: tuple[str, ...]
    header_line: int
    digest: str

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row below the header that is not blank, with the line where it begins."""
        for line, cells in _records(self.path, self.encoding, self.delimiter):
            if line > self.header_line:
                yield line, cells


def open_table(path: Path) -> Table:
    """Find out how a table is written. Raises InputError where it is not a table with a header."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file; give the path of a CSV file")
        with path.open("rb") as stream:
            encoding, digest = _survey(path, stream)
        with path.open(encoding=encoding, newline="") as text:
            sep = _SEP.fullmatch(text.readline(64))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if sep and sep[1] not in (*_DELIMITERS, "|"):
        raise InputError(f"{path}, line 1: {sep[1]!r} cannot separate columns; write 'sep=;' or 'sep=,'")
    delimiter, line, header = _header(path, encoding, sep[1] if sep else "")
    return Table(path, encoding, delimiter, tuple(header), line, digest)


def _survey(path: Path, stream: BinaryIO) -> tuple[str, str]:
    """Encoding and SHA-256 of a whole file."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    head, is_utf8 = b"", True
    while chunk := stream.read(_CHUNK):
        head = head or chunk[:4096]
        digest.update(chunk)
        is_utf8 = is_utf8 and _decodes(decoder, chunk, final=False)
    is_utf8 = is_utf8 and _decodes(decoder, b"", final=True)
    if not head:
        raise InputError(
            f"{path}: the file is empty; it needs a header line such as EMPI,Accession, and rows"
        )
    for magic, what in _OTHER_FORMATS:
        if head.startswith(magic):
            raise InputError(f"{path}: this is {what}")
    return _encoding(head, is_utf8), digest.hexdigest()


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def _encoding(head: bytes, is_utf8: bool) -> str:
    """UTF-16 by its mark, or by the NUL beside each of its ASCII characters; cp1252 where UTF-8 fails."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return "utf-8-sig" if is_utf8 else "cp1252"


def _header(path: Path, encoding: str, sep: str) -> tuple[str, int, list[str]]:
    """Delimiter, line and cells of the header: the reading that gives the most columns that are known."""
    best: tuple[tuple[int, int], str, int, list[str]] | None = None
    failure: InputError | None = None
    for delimiter in sep or _DELIMITERS:
        try:
            line, cells = _first(path, encoding, delimiter, after=1 if sep else 0)
        except InputError as error:
            failure = failure or error
            continue
        score = (sum(1 for cell in cells if keyword_of(cell)), len(cells))
        if best is None or score > best[0]:
            best = (score, delimiter, line, cells)
    if best is None:
        raise failure or InputError(f"{path}: there is no header")
    return best[1:]


def _first(path: Path, encoding: str, delimiter: str, after: int) -> tuple[int, list[str]]:
    for line, cells in _records(path, encoding, delimiter):
        # Under the wrong delimiter a blank line is a cell full of the right one.
        if line > after and "".join(cells).strip(" ,;\t\xa0"):
            return line, cells
    raise InputError(f"{path}: the file is blank; it needs a header line such as EMPI,Accession, and rows")


def _records(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, each with the physical line where it begins."""
    line = 1
    try:
        with path.open(encoding=encoding, newline="") as stream:
            reader = csv.reader(_lines(path, stream), delimiter=delimiter, strict=True)
            for cells in reader:
                if any(cells) and not "".join(cells).isspace():
                    yield line, cells
                line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: {_quoting(error)}") from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, line) from error


def _lines(path: Path, stream: TextIO) -> Iterator[str]:
    number = 1
    while text := stream.readline(_LONGEST_LINE):
        if len(text) == _LONGEST_LINE:
            raise InputError(f"{path}, line {number}: the line is longer than a table's; is this a CSV file?")
        yield text
        number += 1


def _quoting(error: csv.Error) -> str:
    """What the csv module found, in a user's words."""
    if "unexpected end" in str(error):
        return "a quote is opened here and never closed; close it, or remove it"
    if "field larger" in str(error):
        return "a cell that begins here is too long; look for a quote that is never closed"
    return "a quoted cell goes on after its closing quote; write quotes inside a cell twice"


def _unreadable(path: Path, error: OSError | ValueError, line: int = 0) -> InputError:
    if isinstance(error, UnicodeError):  # text is decoded in blocks, so its line is not known
        return InputError(f"{path}: neither UTF-8, UTF-16 nor Windows-1252 text; {_AS_CSV}")
    where = f"{path}, line {line}" if line else f"{path}"
    return InputError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or error})")
