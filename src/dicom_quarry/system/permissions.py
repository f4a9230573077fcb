"""Who may read what is written: its owner alone, unless colleagues share the work through a group."""

from __future__ import annotations

import grp
import os
import re
import stat
from dataclasses import dataclass

from dicom_quarry.errors import ConfigError

_OCTAL = re.compile(r"0?[0-7]{3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Permissions:
    """``file_mode`` for files; folders are entered by whoever reads the files. ``group`` by its number.

    Applied to an open descriptor, so that no umask has a say; the group before the mode, so that no other
    group may read meanwhile.
    """

    file_mode: int = 0o600
    group_id: int | None = None

    @property
    def is_private(self) -> bool:
        """Nothing beyond what is usual: files are made so, and need not be touched again."""
        return self.file_mode == 0o600 and self.group_id is None

    @property
    def folder_mode(self) -> int:
        """Who may read files may list folders (x where r); with a group, new files in them get it, too."""
        entered = self.file_mode | (self.file_mode & 0o444) >> 2
        return entered | (stat.S_ISGID if self.group_id is not None else 0)

    def apply_to_file(self, fd: int) -> None:
        """Let the file be read by whom it is for. Raises OSError."""
        self._apply(fd, self.file_mode)

    def apply_to_folder(self, fd: int) -> None:
        """Let a folder be entered by whom it is for; what is allowed already stays. Raises OSError.

        One of somebody else is left as it is.
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


def parse_file_mode(text: str) -> int:
    """Read a mode such as ``0640``; raises ValueError for one that gives too much, or too little."""
    if not _OCTAL.fullmatch(text):
        raise ValueError('write an octal mode such as "0640"')
    mode = int(text, 8)
    if mode & 0o111:
        raise ValueError('images are no programs: leave the x bits out, as in "0640"')
    if mode & 0o600 != 0o600:
        raise ValueError('the owner must be able to read and write, as in "0640"')
    if mode & 0o002:
        raise ValueError('everybody could write to it: write a mode such as "0640" or "0660"')
    return mode


def make_permissions(mode: str | None, group: str | None) -> Permissions:
    """What the settings ask for; a group without a mode may read. Raises ConfigError where that cannot be."""
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
            f"group: there is no group {name} on this computer: see  getent group  or ask its administrator"
        ) from None
    if os.geteuid() != 0 and number not in {os.getegid(), *os.getgroups()}:
        raise ConfigError(
            f"group: you are not in the group {name}, and could not give files to it: ask this computer's "
            "administrator to add you, and log in again"
        )
    return number
