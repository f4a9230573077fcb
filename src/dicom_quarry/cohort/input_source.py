"""Where a table comes from: a file, or standard input, which is put aside since a table is read twice."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
