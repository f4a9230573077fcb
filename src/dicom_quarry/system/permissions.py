"""Permissions of the files that Quarry writes: for their owner only, or for a group of colleagues."""

from __future__ import annotations

import grp
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import ConfigError

_OCTAL = re.compile(r"0?[0-7]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Permissions:
    """The mode of files, and the number of their group; None for the group that the system gives.

    They are applied to an open descriptor, so that the umask has no effect. The group is set before the mode,
    so that the former group can read at no moment.
    """

    file_mode: int = 0o600
    group_id: int | None = None

    @property
    def is_private(self) -> bool:
        """True for the owner only: files are created like this, and need no further call."""
        return self.file_mode == 0o600 and self.group_id is None

    @property
    def folder_mode(self) -> int:
        """The mode of folders: x where files have r; with a group also setgid, for the files in them."""
        listable = self.file_mode | (self.file_mode & 0o444) >> 2
        return listable | (stat.S_ISGID if self.group_id is not None else 0)

    def apply_to_file(self, fd: int) -> None:
        """Set the mode, and the group, of an open file. Raises OSError."""
        self._apply(fd, self.file_mode)

    def apply_to_folder(self, fd: int) -> None:
        """Add the mode to that of an open folder, and set the group. Raises OSError.

        A folder of another user stays as it is.
        """
        found = os.fstat(fd)
        if os.geteuid() not in (0, found.st_uid):
            return
        mode = stat.S_IMODE(found.st_mode)
        wanted = mode | self.folder_mode
        if wanted != mode or self.group_id not in (None, found.st_gid):
            self._apply(fd, wanted)

    def _apply(self, fd: int, mode: int) -> None:
        if self.group_id is not None:
            os.fchown(fd, -1, self.group_id)
        os.fchmod(fd, mode)


#: For the owner alone: files name patients.
PRIVATE = Permissions()


def make_private_folder(path: Path) -> None:
    """Make a folder and its missing parents, all for this user alone; raise OSError.

    ``Path.mkdir`` gives the parents the mode of the umask.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


def parse_file_mode(text: str) -> int:
    """Parse a mode such as ``0640``; raise ValueError if it allows too much or too little."""
    if not _OCTAL.fullmatch(text):
        raise ValueError('write an octal mode such as "0640"')
    mode = int(text, 8)
    if mode & 0o111:
        raise ValueError('image files need no x bits: write a mode such as "0640"')
    if mode & 0o600 != 0o600:
        raise ValueError('the owner must be able to read and write: write a mode such as "0640"')
    if mode & 0o002:
        raise ValueError(
            'every user of this computer could change the files: write a mode such as "0640" or "0660"'
        )
    return mode


def make_permissions(mode: str | None, group: str | None) -> Permissions:
    """Return the permissions that the settings give; a group without a mode may read. Raises ConfigError."""
    try:
        number = parse_file_mode(mode) if mode is not None else None
    except ValueError as error:
        raise ConfigError(f"file-mode: {error} (it is {mode!r})") from None
    if group is None:
        return PRIVATE if number is None else Permissions(number)
    return Permissions(0o640 if number is None else number, _find_group_id(group))


def _find_group_id(name: str) -> int:
    try:
        number = int(name) if name.isascii() and name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"group: there is no group {name} on this computer. List its groups with  getent group"
        ) from None
    if os.geteuid() != 0 and number not in {os.getegid(), *os.getgroups()}:
        raise ConfigError(
            f"group: you are not in the group {name}, so you cannot give files to it. Ask this computer's "
            "administrator to add you, then log in again"
        )
    return number
