"""Reads manifest.csv.gz, the list of files with their checksums that is delivered with a folder.

The list comes from another person: a line that is not one of Quarry's is refused, and so is a path that leads
out of the folder.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Final

from dicom_quarry.errors import InputError
from dicom_quarry.ledger.stored_files import FileTotals, StoredFile

MANIFEST_NAME: Final = "manifest.csv.gz"

_PAGE: Final = 2000
_COLUMNS: Final = ("path", "study_uid", "series_uid", "sop_uid", "bytes", "sha256")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SIZE: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


class ManifestRecords:
    """The records of a manifest. Raises InputError, also while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        files = size = 0
        for _, page in self.files():
            files, size = files + len(page), size + sum(file.size for file in page)
        self._totals = FileTotals(files, size)

    def files(
        self, *, after: int = 0, last: int | None = None, released: bool = False
    ) -> Iterator[tuple[int, list[StoredFile]]]:
        """Yield pages with their numbers; a manifest does not show which studies are ``released``."""
        del released
        with _open_manifest(self._path) as stream:
            lines = _read_lines(csv.DictReader(stream, strict=True))
            number = 0
            while (page := list(islice(lines, _PAGE))) and (last is None or number < last):
                number += 1
                if number > after:
                    yield number, page

    def totals(self, *, released: bool = False) -> FileTotals:
        """Return the number of files and their bytes."""
        return FileTotals(0, 0) if released else self._totals

    def rows_of(self, task_id: int) -> tuple[int, ...]:
        """Return no rows: a manifest has none."""
        del task_id
        return ()

    def unfinished_folders(self) -> frozenset[str]:
        """Return no folders: what is in the folder should be in the manifest."""
        return frozenset()

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


@contextmanager
def _open_manifest(path: Path) -> Iterator[IO[str]]:
    """Open a manifest as text, packed or not; turn what is wrong with it into an InputError."""
    try:
        with path.open("rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if is_packed
            else path.open(encoding="utf-8-sig", newline="")
        ) as stream:
            yield stream
    except PermissionError:
        raise InputError(
            f"{path} cannot be read: ask {path.owner()}, its owner, for the right to read it"
        ) from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"{path} cannot be used as a manifest ({error}): get it again") from None


def _read_lines(lines: csv.DictReader[str]) -> Iterator[StoredFile]:
    missing = set(_COLUMNS) - set(lines.fieldnames or ())
    if missing:
        raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    for cells in lines:
        path, study_uid, series_uid, sop_uid, size, digest = (cells[name] or "" for name in _COLUMNS)
        path = path.removeprefix("./")
        levels = path.split("/")
        if "\0" in path or any(level in ("", ".", "..") for level in levels):
            raise ValueError(f"line {lines.line_num} has no path of a file in the folder")
        if not (_SIZE.fullmatch(size) and _SHA256.fullmatch(digest)):
            raise ValueError(f"line {lines.line_num} has no size or no SHA-256")
        yield StoredFile(path, int(size), bytes.fromhex(digest), 0, study_uid, series_uid, sop_uid)
