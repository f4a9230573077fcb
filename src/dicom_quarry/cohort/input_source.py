"""The source of a table: a file, or standard input, which is copied to disk because a table is read twice."""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dicom_quarry.errors import InputError

#: The path that means standard input.
STANDARD_INPUT = Path("-")


class InputSource:
    """Bytes that can be read from the beginning several times; ``name`` is for messages.

    Raises InputError if the path is not a file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool: BinaryIO | None = None
        self.name = str(path)
        if path == STANDARD_INPUT:
            self.name = "standard input"
            self._spool = spool_to_disk(sys.stdin.buffer)
            weakref.finalize(self, self._spool.close)
            return
        with self.translate_errors():
            if not stat.S_ISREG(path.stat().st_mode):
                raise InputError(
                    f"{path}: not a regular file; give the path of a table, or - for standard input"
                )

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open an independent stream from the beginning; raises InputError if it cannot be read."""
        with self.translate_errors():
            stream = self._path.open("rb") if self._spool is None else open_spool(self._spool)
            with stream:
                yield stream

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Translate errors of the operating system to InputError."""
        try:
            yield
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self.name}: cannot be read ({reason})") from error


def spool_to_disk(stream: BinaryIO) -> BinaryIO:
    """Copy a stream to a file without a name, which the system removes even after a crash.

    Raises InputError.
    """
    try:
        spool = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the source)
        shutil.copyfileobj(stream, spool)
        spool.flush()
    except (OSError, ValueError) as error:
        raise InputError(f"standard input: cannot be copied to a temporary file ({error})") from error
    return spool


def open_spool(spool: BinaryIO) -> BinaryIO:
    """Open an independent reader of a file without a name, from its beginning."""
    return io.BufferedReader(_SpoolReader(spool), 1 << 16)  # type: ignore[type-var]


class _SpoolReader(io.RawIOBase):
    """A reader of a spool from its beginning, with its own position, independent of other readers."""

    def __init__(self, spool: BinaryIO) -> None:
        self._spool = spool
        self._position = 0

    def fileno(self) -> int:
        return self._spool.fileno()

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
