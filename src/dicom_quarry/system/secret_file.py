"""Passwords in files that this user alone can read."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.errors import ConfigError


def read_secret_file(path: Path, setting: str) -> str:
    """Return the text of a file without the end of its line; raise ConfigError, which names the setting."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{setting}: others can read {path}: run  chmod 600 {path}")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from error
