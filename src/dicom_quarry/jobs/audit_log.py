"""The audit log: which user fetched which study, when, under which approval.

Lines are only appended. A line is durable before the ledger records the same event. After a crash in between
the work is repeated and logged again: a study may be in the log twice, but is never missing. The log of a job
in a folder is ``audit.csv`` in its state folder.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dicom_quarry.errors import LedgerError, LedgerFull
from dicom_quarry.ledger.database import Work, do_nothing
from dicom_quarry.ledger.views import Counts
from dicom_quarry.model import Study
from dicom_quarry.system.csv_cells import escape_cell
from dicom_quarry.system.file_systems import sync_directory
from dicom_quarry.system.locks import locked
from dicom_quarry.system.ownership import NotOwned, open_own_file
from dicom_quarry.system.processes import user_name
from dicom_quarry.system.shutdown import Stopped

AUDIT_NAME = "audit.csv"

COLUMNS = (
    "time",
    "event",
    "user",
    "host",
    "protocol",
    "archive",
    "transport",
    "row",
    "study_uid",
    "patient_id",
    "outcome",
    "code",
    "instances",
    "bytes",
    "details",
)

_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def _raise_full(reason: str) -> None:
    raise LedgerFull(reason)


class AuditLog(ABC):
    """The audit log, open for appending by any thread; ``protocol`` is the approval of the job."""

    def __init__(self, protocol: str) -> None:
        self._constant_values = {"user": user_name(), "host": socket.gethostname(), "protocol": protocol}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, event: str, study: Study | None = None, **values: object) -> None:
        """Append a line, durably; ``values`` are by column. Raises LedgerError."""
        self._append_durably(self._make_cells(event, study, values))

    def write_with(self, event: str, study: Study, **values: object) -> Work[object]:
        """Append a line, durably, at the latest by the function that is returned: see ``write``.

        The function is for the ledger's transaction with the same event.
        """
        return self._append_with(self._make_cells(event, study, values))

    def _make_cells(self, event: str, study: Study | None, values: dict[str, object]) -> list[str]:
        if study is not None:
            values |= {"study_uid": study.study_uid, "patient_id": study.patient_id}
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "event": event, **self._constant_values, **values}
        return [escape_cell(str(line.get(name, ""))) for name in COLUMNS]

    def _append_with(self, cells: Sequence[str]) -> Work[object]:
        self._append_durably(cells)
        return do_nothing

    @abstractmethod
    def close(self) -> None:
        """Close the log."""

    @abstractmethod
    def _append_durably(self, cells: Sequence[str]) -> None:
        """Append a line as a whole; return when it is durable."""


class AuditFile(AuditLog):
    """The audit log in a file.

    ``on_full`` is called repeatedly while the disk is full, first with a message for the user, then with an
    empty string. It waits for a while, or raises. Raises LedgerError if the file cannot be written.
    """

    def __init__(self, path: Path, protocol: str = "", on_full: Callable[[str], None] | None = None) -> None:
        super().__init__(protocol)
        self._path = path
        self._on_full = on_full or _raise_full
        self._write_lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._written_lines = self._durable_lines = 0
        try:
            self._fd = open_own_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        except NotOwned as error:
            raise LedgerError(f"the audit log cannot be written: {error}") from None
        except OSError as error:
            raise LedgerError(f"{path} cannot be written: {error.strerror}") from error
        self._prepare_file()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append_durably(self, cells: Sequence[str]) -> None:
        with self._write_lock:
            self._append(format_line(cells))
            self._written_lines = number = self._written_lines + 1
        # One sync serves all threads that wrote their lines before it began.
        with self._sync_lock:
            if self._durable_lines < number:
                reached = self._written_lines
                self._sync()
                self._durable_lines = reached

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error

    def _prepare_file(self) -> None:
        """Write the header of a new file; end a line that a crash has cut off, so that it stays alone."""
        size = os.fstat(self._fd).st_size
        if not size:
            self._append(format_line(COLUMNS))
            self._sync()
            sync_directory(self._path.parent)
        elif os.pread(self._fd, 1, size - 1) != b"\n":
            self._append(b"\r\n")

    def _append(self, line: bytes) -> None:
        """Append a line as a whole; call ``on_full`` until the disk has space for it."""
        reason = (
            f"disk full: {self._path} cannot be written. Free some space; the job then continues by itself"
        )
        while not self._try_append(line):
            self._on_full(reason)
            reason = ""

    def _try_append(self, line: bytes) -> bool:
        """Append a line as a whole, or return False. Locked, as a release may write while the job runs."""
        try:
            with locked(self._fd):
                before = os.fstat(self._fd).st_size
                if os.write(self._fd, line) == len(line):
                    return True
                os.ftruncate(self._fd, before)
        except OSError as error:
            if error.errno not in _DISK_FULL_ERRNOS:
                raise LedgerError(f"{self._path} cannot be written: {error.strerror}") from error
        return False


@contextmanager
def record_run(
    audit: AuditLog, archives: Iterable[object], details: str, counts: Callable[[], Counts]
) -> Iterator[None]:
    """Log the start of a run, and its end with the counts, also after an error."""
    archive_names = " ".join(map(str, archives))
    audit.write("started", archive=archive_names, details=details)
    error = "ended by an error"
    try:
        yield
        error = ""
    finally:
        final_counts = counts()
        # A full disk must not keep the job from its end.
        with suppress(Stopped, LedgerError):
            audit.write(
                "ended",
                archive=archive_names,
                outcome="finished" if final_counts.is_finished else "not finished",
                instances=final_counts.instances_stored,
                bytes=final_counts.size,
                details="; ".join(filter(None, [error, _format_counts(final_counts)])),
            )


def _format_counts(counts: Counts) -> str:
    rows = ", ".join(f"{count} {status}" for status, count in counts.rows_by_status.items())
    return f"rows: {rows}; studies complete: {counts.studies_complete} of {counts.studies}"


def format_line(cells: Iterable[str]) -> bytes:
    """Return a line of audit.csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_audit_file(path: Path) -> Iterator[dict[str, str]]:
    """Yield the records of ``path``, none if there is no file; raise LedgerError.

    A line that a crash has cut off has its text alone, as ``line``.
    """
    try:
        with path.open(encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            lines = (line.rstrip("\r\n") for line in stream)
            columns = _split_line(next(lines, ""))
            for line in filter(None, lines):
                cells = _split_line(line)
                yield (
                    {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
                    if len(cells) == len(columns)
                    else {"line": line}
                )
    except FileNotFoundError:
        return
    except OSError as error:
        raise LedgerError(f"{path} cannot be read: {error.strerror}") from error


def _split_line(line: str) -> list[str]:
    """Return the cells of a line; none if it is not CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
