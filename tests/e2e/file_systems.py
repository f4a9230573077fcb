"""File systems of their own: a small one, and one that is on a network."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own; needs root."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "quarry-test", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class NetworkDisk(threading.Thread):
    """A mounted file system that calls itself sshfs; it has folders, and nothing else (linux/fuse.h)."""

    _LOOKUP, _FORGET, _GETATTR, _MKDIR, _INIT, _MANY = 1, 2, 3, 9, 26, 42

    def __init__(self, path: Path) -> None:
        super().__init__(name="fuse", daemon=True)
        path.mkdir()
        self.path = path
        self._folders: dict[tuple[int, bytes], int] = {}

    def __enter__(self) -> Path:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd = os.open("/dev/fuse", os.O_RDWR)
        except OSError:
            pytest.skip("there is no FUSE here")
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"host:/", os.fsencode(self.path), b"fuse.sshfs", 0, options):
            os.close(self._fd)
            pytest.skip("only root may mount")
        self.start()
        return self.path

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)
        self.join(10)
        os.close(self._fd)

    def run(self) -> None:
        """Answer until it is unmounted."""
        while True:
            try:
                data = os.read(self._fd, 1 << 18)
            except OSError:
                return
            _, operation, unique, node = struct.unpack_from("<IIQQ", data)
            if operation in (self._FORGET, self._MANY):
                continue
            error, answer = self._answer(operation, node, data[40:])
            os.write(self._fd, struct.pack("<IiQ", 16 + len(answer), -error, unique) + answer)

    def _answer(self, operation: int, node: int, data: bytes) -> tuple[int, bytes]:
        if operation == self._INIT:
            return 0, struct.pack("<4I2H2I", 7, 31, 0, 0, 0, 0, 1 << 16, 1) + bytes(32)
        if operation == self._GETATTR:
            return 0, bytes(16) + self._attributes(node)
        if operation == self._MKDIR:
            self._folders[node, data[8:].rstrip(b"\0")] = len(self._folders) + 2
        if operation in (self._MKDIR, self._LOOKUP):
            found = self._folders.get((node, data[8 * (operation == self._MKDIR) :].rstrip(b"\0")))
            return (
                (0, struct.pack("<QQ", found, 0) + bytes(24) + self._attributes(found)) if found else (2, b"")
            )
        return errno.ENOSYS, b""

    @staticmethod
    def _attributes(node: int) -> bytes:
        return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, 0o40700, 2, 0, 0, 0, 4096, 0)
