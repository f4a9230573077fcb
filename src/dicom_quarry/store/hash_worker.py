"""The worker process of verification/hash_pool.py: compares files with their records.

For small files the system calls take longer than the hash, and threads would make them one after the other.
With processes, verify is as fast as the processors and the disk. The module imports only the standard
library, so that a process starts quickly. It reads pickled batches from standard input and writes pickled
problems to standard output.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import stat
import sys
from collections.abc import Sequence

#: Path, bytes and SHA-256 of a file.
RecordedFile = tuple[str, int, bytes]

#: A batch: the root of the paths, True to compare only sizes, and the files.
Batch = tuple[str, bool, Sequence[RecordedFile]]

#: The problems by index in the batch: a code, and the end of a sentence that begins with the file.
Problems = dict[int, tuple[str, str]]

_CHUNK_SIZE = 1 << 20

#: The process that started this one; None where compare_batch is called in the caller's own process.
_parent_pid: int | None = None


def compare_batch(batch: Batch, buffer: memoryview | None = None) -> Problems:
    """Compare every file of a batch; return the problems."""
    root, quick, files = batch
    buffer = buffer or memoryview(bytearray(_CHUNK_SIZE))
    problems: Problems = {}
    for index, (path, size, digest) in enumerate(files):
        found = (
            _compare_size(f"{root}/{path}", size)
            if quick
            else _compare_content(f"{root}/{path}", size, digest, buffer)
        )
        if found:
            problems[index] = found
    return problems


def _compare_size(path: str, size: int) -> tuple[str, str] | None:
    try:
        return _check_size(os.stat(path), size)  # noqa: PTH116 - a Path costs more than the call
    except OSError as error:
        return _describe_error(error)


def _compare_content(path: str, size: int, digest: bytes, buffer: memoryview) -> tuple[str, str] | None:
    try:
        # Without O_NONBLOCK the open would block on a pipe of this name.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = _check_size(os.fstat(fd), size)
            if found:
                return found
            sha256, left = hashlib.sha256(), size
            while left > 0 and (read := os.readv(fd, [buffer])):
                sha256.update(buffer[:read])
                left -= read
                if _parent_pid is not None and os.getppid() != _parent_pid:
                    sys.exit()  # the parent has ended; the rest of the file may be large
        finally:
            os.close(fd)
    except OSError as error:
        return _describe_error(error)
    return None if sha256.digest() == digest else ("content", "has other content than was recorded")


def _check_size(found: os.stat_result, size: int) -> tuple[str, str] | None:
    if not stat.S_ISREG(found.st_mode):
        return "unreadable", "is not a regular file"
    if found.st_size != size:
        return "size", f"has {found.st_size} bytes instead of {size}"
    return None


def _describe_error(error: OSError) -> tuple[str, str]:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "missing", "is missing"
    return "unreadable", f"cannot be read: {error.strerror}"


def _serve(parent_pid: int) -> None:
    global _parent_pid  # noqa: PLW0603 - set once, before anything is read
    _parent_pid = parent_pid  # given by the parent, which may end before os.getppid could return it
    # Ctrl-C is for the parent, which closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    buffer = memoryview(bytearray(_CHUNK_SIZE))
    while True:
        try:
            batch = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            pickle.dump(compare_batch(batch, buffer), sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            os._exit(0)  # the parent has ended; the buffer cannot be flushed


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
