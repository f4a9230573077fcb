"""Files that appear whole or not at all, readable by their owner unless told otherwise."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from dicom_quarry.system.permissions import PRIVATE, Permissions


@contextmanager
def atomic_write(path: Path, permissions: Permissions = PRIVATE) -> Iterator[IO[bytes]]:
    """Write beside ``path``, and take its place once everything is on disk; an error leaves the old file."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            yield stream
            stream.flush()
            permissions.apply_to_file(stream.fileno())
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_text(path: Path, permissions: Permissions = PRIVATE) -> Iterator[TextIO]:
    """``replacing`` for UTF-8 text, gzipped where the name ends in ``.gz``; same text, same bytes.

    There is no byte order mark: it would become part of the first header for every script that reads the file
    as plain UTF-8. The price is that Excel has to be told "UTF-8" when it imports letters beyond ASCII.
    """
    with atomic_write(path, permissions) as raw:
        # An archive's name and time would differ from run to run: both are left out.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        text = io.TextIOWrapper(packed, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()
            if packed is not raw:
                packed.close()
