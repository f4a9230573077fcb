"""A disk that loses power, simulated from what a job did to a real one.

Simulated are the calls of Python's ``os`` module below one folder, and syncfs, which are all that the store
makes. A file has only the bytes that it had at its last fsync, fdatasync or syncfs; a name (a file's, a hard
link's, a folder's) is there only if its folder was synced since. Or by chance, as disks write on their own:
then of each folder the first few of the pending changes, and of a file that got its name all bytes, the first
few, or zeros. SQLite writes from C, and is believed: of the ledger there is what was on
the disk when a commit had returned, so what is tested is the order of the store's writes and the ledger's
commits, not SQLite's own fsyncs. The folder itself and what else is in ``.quarry`` is there.
"""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dicom_quarry.ledger.database import Database
from dicom_quarry.store import file_sync
from dicom_quarry.system.file_systems import sync_file_system

Change = Callable[[object, str, object], None]


@dataclass(frozen=True, slots=True)
class Event:
    """``kind`` is name, gone, written, content, synced or ledger.

    ``path`` is relative, ``node`` a file or folder. What is written is not yet durable; content is.
    """

    kind: str
    path: str = ""
    node: int = 0
    data: bytes = b""
    log: bytes = b""


FOLDER = -1


@dataclass
class Recorder:
    """Record of the file operations below ``root``, in their order."""

    root: Path
    events: list[Event] = field(default_factory=list)
    _nodes: dict[int, int] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def install(self, change: Change) -> None:
        """Listen to the os module and to the ledger's commits; ``change`` is a monkeypatch's setattr."""
        change(os, "open", self._opening(os.open))
        change(os, "mkdir", self._naming(os.mkdir))
        change(os, "link", self._linking(os.link))
        change(os, "rename", self._renaming(os.rename))
        change(os, "unlink", self._removing(os.unlink))
        change(os, "fsync", self._syncing(os.fsync))
        change(os, "fdatasync", self._syncing(os.fdatasync))
        change(file_sync, "sync_file_system", self._syncing_all(sync_file_system))
        change(Database, "_commit", self._committing(Database._commit))

    def _add(self, kind: str, path: str | None, node: int = 0, data: bytes = b"", log: bytes = b"") -> None:
        if path is not None:
            self.events.append(Event(kind, path, node, data, log))

    def _add_name(self, path: Any, dir_fd: int | None) -> None:
        node = os.stat(path, dir_fd=dir_fd).st_ino
        self._add("name", self._path(path, dir_fd), self._nodes.get(node, 0))

    def _add_content(self, kind: str, path: Any, dir_fd: int | None = None) -> None:
        fd = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
        try:
            status = os.fstat(fd)
            node = self._nodes.get(status.st_ino, 0)
            self._add(kind, self._path(path, dir_fd), node, os.pread(fd, status.st_size, 0))
        finally:
            os.close(fd)

    def _path(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Relative to the root; None if it is not below it, or Quarry's own."""
        base = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()  # noqa: PTH109, PTH115
        full = os.path.normpath(os.path.join(base, os.fspath(path)))  # noqa: PTH118
        if not full.startswith(f"{self.root}/"):
            return "" if full == str(self.root) else None
        return full[len(str(self.root)) + 1 :]

    def _opening(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            with self._lock:
                fd = real(path, flags, mode, dir_fd=dir_fd)
                if flags & os.O_CREAT and flags & os.O_EXCL:
                    self._nodes[os.fstat(fd).st_ino] = len(self.events) + 1
                    self._add("name", self._path(path, dir_fd), len(self.events) + 1)
                return fd

        return opened

    def _naming(self, real: Callable[..., None]) -> Callable[..., None]:
        def made(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            with self._lock:
                real(path, mode, dir_fd=dir_fd)
                self._add("name", self._path(path, dir_fd), FOLDER)

        return made

    def _linking(self, real: Callable[..., None]) -> Callable[..., None]:
        def linked(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                self._add_content("written", source, options.get("src_dir_fd"))
                real(source, target, **options)
                self._add_name(target, options.get("dst_dir_fd"))

        return linked

    def _renaming(self, real: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **options: Any) -> None:
            with self._lock:
                real(source, target, **options)
                self._add("gone", self._path(source, options.get("src_dir_fd")))
                self._add_name(target, options.get("dst_dir_fd"))

        return renamed

    def _removing(self, real: Callable[..., None]) -> Callable[..., None]:
        def removed(path: Any, *, dir_fd: int | None = None) -> None:
            with self._lock:
                name = self._path(path, dir_fd)
                real(path, dir_fd=dir_fd)
                self._add("gone", name)

        return removed

    def _syncing(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def synced(fd: int) -> None:
            real(fd)
            with self._lock:
                name = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
                path = self._path(name)
                if path is None:
                    return
                if os.path.isdir(name):  # noqa: PTH112
                    self._add("synced", path)
                else:
                    node = self._nodes.get(os.fstat(fd).st_ino, 0)
                    self._add("content", path, node, os.pread(fd, os.fstat(fd).st_size, 0))

        return synced

    def _syncing_all(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def synced(fd: int) -> None:
            real(fd)
            with self._lock:
                for folder, _, names in os.walk(self.root):
                    if not folder.startswith(f"{self.root}/.quarry"):
                        for name in names:
                            self._add_content("content", os.path.join(folder, name))  # noqa: PTH118
                        self._add("synced", self._path(folder))

        return synced

    def _committing(self, real: Callable[..., None]) -> Callable[..., None]:
        def committed(database: Database, group: list[Any]) -> None:
            mine = [replace(piece, future=Future()) for piece in group]
            real(database, mine)
            with self._lock:
                # The writer's thread: no other thread writes meanwhile, or knows of this commit yet.
                ledger = self.root / ".quarry" / "ledger.db"
                log = ledger.with_name("ledger.db-wal")
                self._add("ledger", "", 0, ledger.read_bytes(), log.read_bytes() if log.exists() else b"")
            for piece, own in zip(group, mine, strict=True):
                future_of_caller, future = piece.future, own.future
                if future.exception() is not None:
                    future_of_caller.set_exception(future.exception())
                else:
                    future_of_caller.set_result(future.result())

        return committed


def after_power_loss(events: list[Event], target: Path, chance: random.Random | None) -> None:
    """Make the folder that is found after the power failed at the end of these events.

    Without ``chance`` nothing is there that was not fsynced; with it the disk had begun to write the rest.
    """
    names: dict[str, int] = {}
    pending: dict[str, list[Event]] = defaultdict(list)
    content: dict[int, bytes] = {}
    written: dict[int, bytes] = {}
    ledger: Event | None = None
    for event in events:
        match event.kind:
            case "name" | "gone":
                pending[os.path.dirname(event.path)].append(event)  # noqa: PTH120
            case "written":
                written[event.node] = event.data
            case "content":
                content[event.node] = event.data
            case "synced":
                _apply(names, pending.pop(event.path, []))
            case "ledger":
                ledger = event
    if chance is not None:
        for changes in pending.values():
            _apply(names, changes[: chance.randint(0, len(changes))])
        content = {node: _some(data, chance) for node, data in written.items()} | content
    _write(target, names, content)
    if ledger is not None:
        (target / ".quarry" / "ledger.db").write_bytes(ledger.data)
        (target / ".quarry" / "ledger.db-wal").write_bytes(ledger.log)
        for name in ("ledger.db", "ledger.db-wal"):
            (target / ".quarry" / name).chmod(0o600)


def _some(data: bytes, chance: random.Random) -> bytes:
    """Of a file that was not synced."""
    part = int(chance.random() * len(data))
    return chance.choice((data, data[:part], data[:part] + bytes(len(data) - part), bytes(len(data)), b""))


def _apply(names: dict[str, int], changes: list[Event]) -> None:
    for change in changes:
        if change.kind == "name":
            names[change.path] = change.node
        else:
            names.pop(change.path, None)


def _write(target: Path, names: dict[str, int], content: dict[int, bytes]) -> None:
    """Names in folders that are not there themselves are lost."""
    (target / ".quarry" / "incoming").mkdir(mode=0o700, parents=True)
    for folder in (target, target / ".quarry"):
        folder.chmod(0o700)
    for name, node in sorted(names.items()):
        path = target / name
        if name.startswith(".quarry") or not path.parent.is_dir():
            continue
        if node == FOLDER:
            path.mkdir(mode=0o700)
        else:
            path.write_bytes(content.get(node, b""))
            path.chmod(0o600)
