"""Damage to a stored file."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path) -> bytes:
    """Change the last bit of a file, whatever it is; return what the file has now."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return bytes(data)
