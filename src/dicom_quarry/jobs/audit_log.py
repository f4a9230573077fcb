"""Who took what, when, under which approval: audit.csv in the state folder, to which lines are only added.

A line is durable before the ledger has what it tells of. After a crash in between the work is done again and
told of again: a study may stand here twice, and never not at all.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import os
import pwd
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.counts import Counts
from dicom_quarry.model import Study
from dicom_quarry.system.csv_cells import harmless
from dicom_quarry.system.shutdown import Stopped

COLUMNS = (
    "time",
    "event",
    "user",
    "host",
    "protocol",
    "archive",
    "road",
    "row",
    "study_uid",
    "patient_id",
    "outcome",
    "code",
    "instances",
    "bytes",
    "details",
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def _no_patience(why: str) -> None:
    raise LedgerError(why)


class Audit:
    """Adds lines to the file; for any thread. ``protocol`` is the approval under which the job runs.

    ``full`` is called again and again while the disk has no room for a line, at first with what to tell: it
    waits a while, or raises.
    """

    def __init__(self, path: Path, protocol: str = "", full: Callable[[str], None] = _no_patience) -> None:
        self._path = path
        self._full = full
        self._fixed = {"user": _user(), "host": socket.gethostname(), "protocol": protocol}
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._durable = 0
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise LedgerError(f"{path} cannot be written: {error.strerror}") from error
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def write(self, event: str, study: Study | None = None, **values: object) -> None:
        """Add a line; it is durable when this returns. ``values`` are by column. Raises LedgerError."""
        if study is not None:
            values |= {"study_uid": study.study_uid, "patient_id": study.patient_id}
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "event": event, **self._fixed, **values}
        with self._writing:
            self._append(_line([line.get(name, "") for name in COLUMNS]))
            self._written = number = self._written + 1
        # Who comes while another waits for the disk finds the line on it already.
        with self._syncing:
            if self._durable < number:
                reached = self._written
                self._sync()
                self._durable = reached

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error

    def _begin(self) -> None:
        """The header, once; and an end to a line that a crash has cut off: the next stands alone."""
        size = os.fstat(self._fd).st_size
        if not size:
            self._append(_line(COLUMNS))
            self._sync()
            _sync_folder(self._path.parent)
        elif os.pread(self._fd, 1, size - 1) != b"\n":
            self._append(b"\r\n")

    def _append(self, line: bytes) -> None:
        """One write; where it does not fit nothing of it stays."""
        told = f"there is no room for {self._path}: waiting for room"
        while not self._fits(line):
            self._full(told)
            told = ""

    def _fits(self, line: bytes) -> bool:
        """Write a line, or nothing of it; alone, as a release beside the job writes here, too."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                before = os.fstat(self._fd).st_size
                if os.write(self._fd, line) == len(line):
                    return True
                os.ftruncate(self._fd, before)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            if error.errno not in _FULL:
                raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
        return False


@contextmanager
def accounted(
    audit: Audit, archives: Iterable[object], details: str, counts: Callable[[], Counts]
) -> Iterator[None]:
    """A run, from the line of its start to that of its end, whatever ends it."""
    where = " ".join(map(str, archives))
    audit.write("started", archive=where, details=details)
    how = "ended by an error"
    try:
        yield
        how = ""
    finally:
        now = counts()
        # The job has stopped all the same where there is no room for this line.
        with suppress(Stopped, LedgerError):
            audit.write(
                "ended",
                archive=where,
                outcome="finished" if now.finished else "not finished",
                instances=now.instances_stored,
                bytes=now.size,
                details="; ".join(filter(None, [how, _words(now)])),
            )


def _words(counts: Counts) -> str:
    rows = ", ".join(f"{count} {word}" for word, count in counts.rows_by_word.items())
    return f"rows: {rows}; studies complete: {counts.studies_complete} of {counts.studies}"


def _line(cells: Iterable[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([harmless(str(cell)) for cell in cells])
    return text.getvalue().encode("utf-8", "backslashreplace")


def _user() -> str:
    """Who runs this process, by the system's word and not by a variable's."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
