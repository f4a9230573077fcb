"""The place of ``quarry web``: its socket, the lock on it, and the link that opens a session once.

A link has a random token. A file in a private folder has its digest and the time of its expiry, so that a
second ``quarry web`` can make a new link for the server that runs. The server removes the file when the link
is used.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.jobs.registry import state_home
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.local_sockets import LOOPBACK, MAX_SOCKET_PATH, listen_loopback, listen_unix
from dicom_quarry.system.locks import FileLock, LockHeld, read_lock_owner
from dicom_quarry.system.ownership import close_own_folder
from dicom_quarry.system.permissions import make_private_folder
from dicom_quarry.system.processes import user_name

#: The port on the user's own computer in the ssh command that is shown.
DEFAULT_PORT = 8765

#: Seconds in which a link can be used.
LINK_LIFETIME = 600

_SOCKET_NAME = "web.sock"


@dataclass(frozen=True, slots=True)
class WebPlace:
    """A private folder, and the ``port`` on loopback; None for a Unix socket in the folder."""

    folder: Path
    port: int | None = None

    @property
    def socket_path(self) -> Path:
        """The Unix socket."""
        return self.folder / _SOCKET_NAME

    @property
    def lock(self) -> Path:
        """The file that a running server has locked."""
        return self.folder / f"{self._name}.lock"

    @property
    def _link(self) -> Path:
        return self.folder / f"{self._name}.link"

    @property
    def _name(self) -> str:
        return "web" if self.port is None else f"port-{self.port}"

    @property
    def ssh_command(self) -> str:
        """The command that brings the socket, or the port, to the user's own computer."""
        # A Unix socket has no port of its own, so that of the other computer is free to choose.
        target = self.socket_path if self.port is None else f"{LOOPBACK}:{self.port}"
        return f"ssh -L {self.local_port}:{target} {user_name()}@{socket.gethostname()}"

    @property
    def local_port(self) -> int:
        """The port in the link."""
        return DEFAULT_PORT if self.port is None else self.port

    def make_link(self) -> str:
        """Return a new link; the former one is void. Raises OSError."""
        token = secrets.token_urlsafe(32)
        with atomic_write_text(self._link, durable=False) as file:
            file.write(f"{_digest(token)} {int(time.time()) + LINK_LIFETIME}\n")
        return f"http://localhost:{self.local_port}/start?token={token}"

    def explain_link(self) -> str:
        """Make a new link, and return how to open it, line by line."""
        lines = [
            "On your own computer, run this command and leave it open:",
            f"\n  {self.ssh_command}\n",
            f"Then open this link in a browser there. It works once, within {LINK_LIFETIME // 60} minutes:",
            f"\n  {self.make_link()}\n",
        ]
        if self.port is not None:
            lines.append("With a browser on this computer, only the link is needed.")
        return "\n".join(lines)

    def use_token(self, token: str) -> bool:
        """Return True if the token is that of the newest link, not expired, and used for the first time."""
        try:
            digest, expiry = self._link.read_text(encoding="ascii").split()
            is_known = hmac.compare_digest(digest, _digest(token)) and time.time() < int(expiry)
        except (OSError, ValueError):
            return False
        if is_known:
            self._link.unlink()
        return is_known

    def remove_files(self) -> None:
        """Remove the link, the socket, and the lock of a port, which itself keeps others away."""
        paths = (self._link, self.socket_path) if self.port is None else (self._link, self.lock)
        for path in paths:
            with suppress(OSError):
                path.unlink()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def open_web_place(port: int | None = None) -> Iterator[tuple[WebPlace, socket.socket]]:
    """Listen on this user's Unix socket, or on a ``port`` of loopback (0 for any), while the context lasts.

    Raises StartError if another quarry web listens there, with a new link to it; PortInUse if another program
    has the port.
    """
    folder = _find_folder()
    listener = None if port is None else _listen_on_port(folder, port)
    place = WebPlace(folder, listener.getsockname()[1] if listener else None)
    lock = FileLock(place.lock)
    try:
        lock.acquire(0.0)
        lock.record_owner()
        listener = listener or listen_unix(place.socket_path)
    except LockHeld as error:
        raise StartError(_describe_running(place, error.owner)) from None
    except OSError as error:
        lock.release()
        raise StartError(f"{place.socket_path} cannot be opened: {error.strerror}") from error
    try:
        yield place, listener
    finally:
        listener.close()
        place.remove_files()
        lock.release()


def _listen_on_port(folder: Path, port: int) -> socket.socket:
    try:
        return listen_loopback(port)
    except PortInUse:
        place = WebPlace(folder, port)
        if owner := read_lock_owner(place.lock):
            raise StartError(_describe_running(place, owner)) from None
        raise


def _describe_running(place: WebPlace, owner: int | None) -> str:
    return f"quarry web is running already (process {owner or 'unknown'}).\n{place.explain_link()}"


def _find_folder() -> Path:
    """Return a private folder in which a socket's path is short enough; raise StartError if there is none."""
    candidates = [state_home() / "web", Path(tempfile.gettempdir()) / f"quarry-{os.getuid()}"]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute():
        candidates.insert(0, Path(runtime) / "quarry")
    for folder in candidates:
        if len(os.fsencode(folder / _SOCKET_NAME)) > MAX_SOCKET_PATH:
            continue
        with suppress(OSError):
            make_private_folder(folder)
            if close_own_folder(folder):
                return folder
    raise StartError(
        "there is no folder for the socket of quarry web: none of "
        f"{', '.join(map(str, candidates))} can be used. "
        "Set XDG_RUNTIME_DIR to a folder of yours with a short path"
    )
