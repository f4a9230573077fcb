"""Atomic files: a reader, or a crash, finds the old content or the new content, and nothing in between."""

from __future__ import annotations

import errno
import gzip
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from dicom_quarry.system.file_systems import sync_directory
from dicom_quarry.system.permissions import PRIVATE, Permissions


@contextmanager
def atomic_write(
    path: Path, permissions: Permissions = PRIVATE, *, durable: bool = True
) -> Iterator[IO[bytes]]:
    """Write a temporary file in the same folder, and rename it to ``path`` at the end. Raises OSError.

    After an error the old file is left as it was. ``durable``: content and name are on the disk when the
    context ends; without, a power cut may leave the old file or an empty one.
    """
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temp_path = Path(name)
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            permissions.apply_to_file(stream.fileno())
            if durable:
                os.fsync(stream.fileno())
        replace_file(temp_path, path, durable=durable)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def atomic_write_text(
    path: Path, permissions: Permissions = PRIVATE, *, durable: bool = True
) -> Iterator[TextIO]:
    """Write UTF-8 text as ``atomic_write`` does, gzipped if the name ends in ``.gz``; same text, same bytes.

    There is no byte order mark: it would become part of the first header for every script that reads the file
    as plain UTF-8. The price is that Excel needs the choice "UTF-8" when it imports letters beyond ASCII.
    """
    with atomic_write(path, permissions, durable=durable) as raw:
        # The name and the time in a gzip header would differ from run to run: both are left out.
        packed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        text = io.TextIOWrapper(packed, "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()
            if packed is not raw:
                packed.close()


def replace_file(temp_path: Path, path: Path, *, durable: bool = True) -> None:
    """Rename a finished file to ``path``, over any file of that name. Raises OSError.

    The content has to be on the disk already; ``durable`` makes the name so.
    """
    temp_path.replace(path)
    if durable:
        try:
            sync_directory(path.parent)
        except OSError as error:
            # Older kernels cannot sync a directory of an SMB share; the file itself is durable there.
            if error.errno != errno.EINVAL:
                raise
