"""Ownership of files and folders: what another user made is not written to, and gives no orders.

Checks use an open descriptor, so that the name cannot get another meaning between the check and the use.
"""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path

from dicom_quarry.errors import InputError
from dicom_quarry.system.processes import user_name

#: How a folder is opened to be checked: any folder, also one that this user may not list.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotOwned(InputError):
    """A file or folder belongs to another user, or another user may write to it."""


def foreign_reason(found: os.stat_result, *, root_is_trusted: bool = False) -> str:
    """Return why another user could have written something; empty if this user alone could.

    Root itself trusts every folder of data; ``root_is_trusted``: a file of root is as good as one of ours.
    """
    trusted = {os.geteuid(), 0} if root_is_trusted else {os.geteuid()}
    if found.st_uid not in trusted:
        return f"it belongs to the user {user_name(found.st_uid)}"
    if stat.S_IMODE(found.st_mode) & 0o002:
        return "every user of this computer may write to it"
    if stat.S_IMODE(found.st_mode) & 0o020 and not _is_private_group(found.st_gid, found.st_uid):
        return f"the group {_group_name(found.st_gid)} may write to it"
    return ""


def require_own_folder(path: Path, *, trust_owner: bool = False) -> None:
    """Raise NotOwned if another user owns a folder or may write to it; root may use every folder.

    A link to a folder must be ours or root's, too. Raises OSError if it cannot be opened.
    """
    if trust_owner or os.geteuid() == 0:
        return
    link = path.lstat()
    reason = ""
    if stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        reason = f"it is a link that belongs to the user {user_name(link.st_uid)}"
    fd = os.open(path, _FOLDER)
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    reason = reason or foreign_reason(found)
    if reason:
        raise NotOwned(_describe_folder(path, reason, is_ours=found.st_uid == os.geteuid()))


def is_own_folder(path: Path) -> bool:
    """Return whether ``require_own_folder`` accepts a folder; for root, only one that is root's."""
    try:
        return not foreign_reason(path.stat())
    except OSError:
        return False


def close_own_folder(path: Path) -> bool:
    """Close a folder of this user to all others; return False if it is a link or another user's.

    Raises OSError if it cannot be opened.
    """
    fd = os.open(path, _FOLDER | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            return False
        if found.st_mode & 0o077:
            os.fchmod(fd, 0o700)
        return True
    finally:
        os.close(fd)


def _describe_folder(path: Path, reason: str, *, is_ours: bool) -> str:
    remedy = f"Close it to others with  chmod go-w {path}" if is_ours else "Use a folder of your own"
    return (
        f"{path} is not used, because {reason}: Quarry would follow what others write there. {remedy}; "
        "or, if you trust everybody who can write there, add --trust-owner"
    )


def open_own_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file of ours, or create it with ``mode``; follow no link and wait for no reader of a pipe.

    A file in a folder of another user, which the caller has decided to trust, may be that user's. Raises
    NotOwned, and OSError.
    """
    try:
        fd = os.open(path, flags | _FILE, mode)
    except OSError as error:
        try:
            found = path.lstat()
        except OSError:
            raise error from None
        _check_file(path, found)
        raise
    try:
        _check_file(path, os.fstat(fd))
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def require_own_file(path: Path) -> None:
    """Raise NotOwned if a file that another library opens by its name is a link, or another user's.

    A file that does not exist is accepted. The folder must be closed to other users.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    _check_file(path, found)


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotOwned(
            f"{path} is {describe_kind(found.st_mode)}, not a file of Quarry: look where it comes from, "
            "then remove it"
        )
    uid = os.geteuid()
    if uid and found.st_uid not in (uid, path.parent.stat().st_uid):
        raise NotOwned(
            f"{path} belongs to the user {user_name(found.st_uid)}, so Quarry does not write to it: "
            "look where it comes from, then remove it"
        )


def describe_kind(mode: int) -> str:
    """Return what something that is not a file is, by its mode: ``a link``."""
    for test, name in ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISDIR, "a folder")):
        if test(mode):
            return name
    return "a device or a socket"


def _is_private_group(gid: int, uid: int) -> bool:
    """Return whether a group has one member, as many systems make one for every user."""
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user_name(uid) and set(group.gr_mem) <= {group.gr_name}


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
