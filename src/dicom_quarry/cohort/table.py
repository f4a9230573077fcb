"""Opening the user's table, whatever it is written in: its header is known, its rows are read when asked for.

The table is passed over more than once, so that one of a million rows needs no more memory than one row: once
for its digest and what it is, then for its rows.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from dicom_quarry.cohort.columns import keyword_of
from dicom_quarry.cohort.csv_table import encoding_of, open_text
from dicom_quarry.cohort.input_source import Source
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


class Table(Protocol):
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


def open_table(path: Path, knows: Callable[[str], object] = keyword_of) -> tuple[Table, str]:
    """Find out how a table is written; returns it with the SHA-256 of its file.

    ``knows`` is true for headers that are keys. Raises InputError where it is not a table with a header.
    """
    source = Source(path)
    with source.open() as stream:
        survey = _survey(source.name, stream)
    if survey.head.startswith(b"PK\x03\x04"):
        # Imported here: most tables are text.
        from dicom_quarry.cohort.xlsx_table import open_workbook

        return open_workbook(source), survey.digest
    if survey.long_line:
        raise InputError(
            f"{source.name}, line {survey.long_line}: the line is longer than a table's; is this a CSV file?"
        )
    return open_text(source, encoding_of(survey.head, survey.is_utf8), knows), survey.digest


@dataclass(slots=True)
class _Survey:
    """What one pass over the bytes tells; ``long_line`` is the first that is too long, 0 if none is."""

    head: bytes = b""
    digest: str = ""
    is_utf8: bool = True
    long_line: int = 0


def _survey(name: str, stream: BinaryIO) -> _Survey:
    survey, digest, lines = _Survey(), hashlib.sha256(), _Lines()
    decoder = codecs.getincrementaldecoder("utf-8")()
    while chunk := stream.read(_CHUNK):
        survey.head = survey.head or chunk[:4096]
        digest.update(chunk)
        lines.take(chunk)
        survey.is_utf8 = survey.is_utf8 and _decodes(decoder, chunk, final=False)
    survey.is_utf8 = survey.is_utf8 and _decodes(decoder, b"", final=True)
    survey.digest, survey.long_line = digest.hexdigest(), lines.long
    if not survey.head:
        raise InputError(
            f"{name}: the file is empty; it needs a header line such as EMPI,Accession, and rows"
        )
    for magic, what in _OTHER_FORMATS:
        if survey.head.startswith(magic):
            raise InputError(f"{name}: this is {what}")
    return survey


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


class _Lines:
    """Looks for a line that is too long without making lines."""

    def __init__(self) -> None:
        self.long = 0
        self._ended = 0
        self._open = 0

    def take(self, chunk: bytes) -> None:
        """The next bytes; no line inside them can be too long, only one that they go on with."""
        end = b"\n" if b"\n" in chunk else b"\r"
        first = chunk.find(end)
        self._open += len(chunk) if first < 0 else first
        if self._open >= _LONGEST_LINE:
            self.long = self.long or self._ended + 1
        if first >= 0:
            self._ended += chunk.count(end)
            self._open = len(chunk) - chunk.rfind(end) - 1
