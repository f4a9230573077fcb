"""Stores instances as files: a temporary file, the final name, then a receipt.

A file has file meta information and the dataset exactly as received. A receiver that cannot fetch again has
each instance durable before its receipt; a job has a study's files durable at once, before its outcome.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final
from weakref import finalize

from dicom_quarry.errors import ConfigError, InstanceRefused, LocalProtocolError, RemoteProtocolError
from dicom_quarry.model import Header, InstanceAdmission, InstanceInfo, InstanceRef, Receipt, StoreResult
from dicom_quarry.store.directories import Directories, rejection_of
from dicom_quarry.store.file_placement import (
    ACCESSION,
    IDENTIFIERS,
    PATIENT_ID,
    SERIES_UID,
    SOP_UID,
    STUDY_UID,
    FilePlacer,
    PlacedFile,
    TempFile,
)
from dicom_quarry.store.file_sync import FileSync
from dicom_quarry.store.non_patient import is_non_patient, non_patient_path
from dicom_quarry.store.part10 import (
    Part10File,
    compute_digest,
    encode_file_head,
    is_transfer_syntax,
    is_uid,
    read_part10,
)
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.store.recovery import PART_SUFFIX, may_be_torn, recover, relocate
from dicom_quarry.system.permissions import PRIVATE, Permissions
from dicom_quarry.wire.data_dictionary import name_of_uid
from dicom_quarry.wire.header_scan import SCAN_TO_END, HeaderScan

#: Called once the header of an instance is read; raises InstanceRefused.
AdmitFunction = Callable[[InstanceInfo, Header], InstanceAdmission]

_MAX_PENDING: Final = 1 << 20
_MISMATCH: Final = 0xA900  # the dataset does not match the SOP class (PS3.4 B.2.3)
_CANNOT_UNDERSTAND: Final = 0xC000
#: Bytes after which the kernel is called to start writing them.
_WRITEBACK_SIZE: Final = 1 << 18
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class InstanceStore:
    """Stores instances as files below ``root``, under names that ``template`` gives; a :class:`model.Sink`.

    Temporary files are in ``incoming``, on the same file system and readable by the owner only; a file gets
    ``access`` before its final name. With ``sync_each`` bytes and name of an instance survive a power cut
    once it is committed; without, once ``sync`` has returned. ``admit`` gets the values of ``tags``, too.
    With ``stores_non_patient`` objects that belong to no patient are stored below a folder of their own.
    """

    def __init__(
        self,
        root: Path,
        template: PathTemplate,
        *,
        incoming: Path,
        admit: AdmitFunction,
        sync_each: bool = False,
        access: Permissions = PRIVATE,
        tags: frozenset[int] = frozenset(),
        stores_non_patient: bool = False,
    ) -> None:
        self.template: Final = template
        self.stores_non_patient: Final = stores_non_patient
        self.admit: Final = admit
        self.sync_each: Final = sync_each
        self.access: Final = access
        self.is_shared: Final = not access.is_private
        self.tags: Final = template.tags | IDENTIFIERS | tags
        self.directories: Final = Directories(root, access)
        self.placer: Final = FilePlacer(self.directories, sync_existing=sync_each)
        self._file_sync = FileSync(self.directories)
        self._incoming = Directories(incoming).root
        if Path(self._incoming).stat().st_dev != Path(self.directories.root).stat().st_dev:
            raise ConfigError(
                "incoming files must be on the file system of the results: choose another folder"
            )
        # Kept open, so that temporary files stay in this folder, even if it is moved or replaced.
        self.incoming_fd: Final = os.open(self._incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finalize(self, os.close, self.incoming_fd)
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count()

    def begin(self, arrival: InstanceInfo) -> InstanceWriter:
        """Start one instance. Raises InstanceRefused."""
        named = is_uid(arrival.sop_uid) or bool(arrival.head)  # a file is identified by its dataset alone
        if not (named and is_uid(arrival.sop_class) and is_transfer_syntax(arrival.transfer_syntax)):
            raise InstanceRefused(
                "the sender's SOP class, instance or transfer syntax is not a UID", status=_MISMATCH
            )
        return InstanceWriter(self, arrival, f"{self._prefix}{next(self._numbers)}{PART_SUFFIX}")

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        """Make these files durable, with their names. Raises InstanceRefused or OutOfSpace.

        The caller discards the files after a failure: see :meth:`FileSync.sync`.
        """
        try:
            self._file_sync.sync(paths)
        except OSError as error:
            raise rejection_of(error) from None

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        """Remove files that could not be made durable; one that cannot be removed stays."""
        for path in paths:
            with suppress(OSError):
                self.directories.unlink(path)

    def read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        """Yield a receipt for every whole DICOM file of a directory, after a crash; skip damaged files.

        Of several files of one instance the first by name counts as stored, the others as conflicts. Raises
        InstanceRefused if the directory cannot be read.
        """
        try:
            yield from self._read_receipts(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise rejection_of(error) from None

    def _read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        seen: set[str] = set()
        fd = self.directories.open(directory)
        try:
            for name in sorted(os.listdir(fd)):  # noqa: PTH208
                receipt = _read_receipt(name, fd, directory / name, seen)
                if receipt:
                    yield receipt
        finally:
            os.close(fd)

    def list_files(self, directory: PurePosixPath) -> list[PurePosixPath]:
        """Return the files of a directory; none if it does not exist. Raises InstanceRefused."""
        try:
            fd = self.directories.open(directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise rejection_of(error) from None
        try:
            with os.scandir(fd) as entries:
                return sorted(directory / one.name for one in entries if one.is_file(follow_symlinks=False))
        finally:
            os.close(fd)

    def find_unsynced(
        self, directory: PurePosixPath, study_uid: str, synced: Container[PurePosixPath]
    ) -> Iterator[PurePosixPath]:
        """Yield the files of a study that may not be whole after a restart of the computer.

        These are its instances, and files without content, except for those that are ``synced``.
        """
        for path in self.list_files(directory):
            if path not in synced and may_be_torn(Path(self.directories.root, path), study_uid):
                yield path

    def relocate(self, receipt: Receipt, subdirectory: str) -> Receipt:
        """Move an instance out of ``subdirectory`` to its usual place. Raises InstanceRefused."""
        try:
            placed = relocate(receipt.path, subdirectory, self.placer, self.directories)
        except OSError as error:
            raise rejection_of(error) from None
        if placed.existing:
            return _make_receipt(placed.path, placed.existing, placed.existing_digest, placed.result)
        return replace(receipt, path=placed.path, result=placed.result)

    def recover(self) -> Iterator[PurePosixPath | None]:
        """Name the files that a crash left; see :func:`dicom_quarry.store.recovery.recover`."""
        return recover(
            Path(self._incoming),
            self.directories,
            self.template,
            takes_non_patient=self.stores_non_patient,
        )


class InstanceWriter:
    """Writes one instance; see :class:`model.Writer`.

    Until the header is complete and admitted, bytes are in memory up to a limit, then in the temporary file.
    """

    def __init__(self, store: InstanceStore, arrival: InstanceInfo, temporary: str) -> None:
        self._store = store
        self._arrival = arrival
        self._temporary = temporary
        self._fd = -1
        self._has_temporary = False
        self._is_closed = False
        self._scan = HeaderScan(arrival.transfer_syntax, store.tags)
        self._path: PurePosixPath | None = None
        self._pending = bytearray(encode_file_head(arrival))
        self._dataset_offset = len(self._pending)
        self._size = 0
        self._writeback_end = 0  # the kernel was called to write the bytes up to here
        self._sha256 = hashlib.sha256()

    def write(self, *pieces: memoryview) -> None:
        """Write the next bytes of the dataset. Raises InstanceRefused or OutOfSpace."""
        if self._is_closed:
            raise LocalProtocolError("the instance is committed or aborted already")
        try:
            has_header = False
            for piece in pieces:
                has_header = self._scan.feed(piece)
            if self._path is not None:
                self._write_file(*pieces)
            elif has_header:
                self._path = self._admit()
                self._write_file(self._pending, *pieces)
                self._pending = bytearray()
            else:
                self._buffer(pieces)
        except BaseException as error:
            self._abort_on(error)
            raise

    def commit(self) -> Receipt:
        """Store the instance under its final name. Raises InstanceRefused or OutOfSpace.

        With ``sync_each`` it is durable then. If only the sync of the directory fails, the file stays but is
        not acknowledged. If the sender sends the instance again, the store finds the file.
        """
        if self._is_closed:
            raise LocalProtocolError("the instance is committed or aborted already")
        try:
            self._scan.end()
            if self._path is None:
                self._path = self._admit()
                self._write_file(self._pending)
            elif self._scan.has_late_values:
                self._path = self._admit()
            self._close_file()
            placed = self._store.placer.place(self._temp_file(), self._path)
            self._has_temporary = placed.existing is not None
            if self._store.sync_each:
                self._store.directories.sync_with_parents(placed.path.parent)
        except BaseException as error:
            self._abort_on(error)
            raise
        self.abort()
        return self._receipt(placed)

    def abort(self) -> None:
        """Close and remove the temporary file; does nothing after commit."""
        self._is_closed = True
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        if self._has_temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._store.incoming_fd)
            self._has_temporary = False

    def _abort_on(self, error: BaseException) -> None:
        """Abort, and raise the refusal that this error is, with a status for the sender (PS3.4 B.2.3)."""
        self.abort()
        if isinstance(error, OSError):
            raise rejection_of(error) from None
        if isinstance(error, RemoteProtocolError):
            raise InstanceRefused(f"{error}{self._label()}", status=_CANNOT_UNDERSTAND) from None

    def _label(self) -> str:
        """Return the transfer syntax for a refusal, as a dataset under a wrong one cannot be read."""
        syntax = self._arrival.transfer_syntax
        return f" (the sender labelled it as {name_of_uid(syntax)})"

    def _admit(self) -> PurePosixPath:
        """Check the header against the announcement, admit the instance, and return its path."""
        header, sop_class = self._scan.values, self._arrival.sop_class
        is_of_patient = not (self._store.stores_non_patient and is_non_patient(sop_class))
        required = (STUDY_UID, SERIES_UID, SOP_UID) if is_of_patient else (SOP_UID,)
        if not all(is_uid(header.get(tag, "")) for tag in required):
            raise InstanceRefused(
                f"Study, Series or SOP Instance UID is missing or invalid{self._label()}", status=_MISMATCH
            )
        if header[SOP_UID] != self._arrival.sop_uid and not self._arrival.head:
            raise InstanceRefused("the dataset has another SOP Instance UID than announced", status=_MISMATCH)
        if not is_of_patient:
            return non_patient_path(sop_class, header[SOP_UID])
        admitted = self._store.admit(self._arrival, header)
        path = self._store.template.render(header, admitted.cells)
        return PurePosixPath(admitted.subdirectory, path) if admitted.subdirectory else path

    def _buffer(self, pieces: Iterable[memoryview]) -> None:
        for piece in pieces:
            self._pending += piece
        if len(self._pending) > _MAX_PENDING:
            self._write_file(self._pending)
            self._pending = bytearray()

    def _write_file(self, *buffers: bytes | bytearray | memoryview) -> None:
        if self._fd < 0:
            self._fd = os.open(self._temporary, _NEW_FILE, 0o600, dir_fd=self._store.incoming_fd)
            self._has_temporary = True
        _write_all(self._fd, buffers)
        self._size += sum(map(len, buffers))
        if self._store.sync_each and self._size - self._writeback_end >= _WRITEBACK_SIZE:
            _start_writeback(self._fd, self._writeback_end, self._size)
            self._writeback_end = self._size
        # The disk works while the digest is computed.
        for buffer in buffers:
            self._sha256.update(buffer)

    def _close_file(self) -> None:
        """Close the file, synced if it has to be; on network file systems either may report a full disk."""
        if self._store.is_shared:
            self._store.access.apply_to_file(self._fd)
        if self._store.sync_each:
            getattr(os, "fdatasync", os.fsync)(self._fd)
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _temp_file(self) -> TempFile:
        sop_uid, syntax = self._scan.values[SOP_UID], self._arrival.transfer_syntax
        incoming = self._store.incoming_fd
        return TempFile(self._temporary, self._dataset_offset, self._size, sop_uid, syntax, incoming)

    def _receipt(self, placed: PlacedFile) -> Receipt:
        if placed.existing:
            return _make_receipt(placed.path, placed.existing, placed.existing_digest, placed.result)
        arrival, header = self._arrival, self._scan.values
        file = Part10File(
            self._dataset_offset, self._size, arrival.sop_class, arrival.transfer_syntax, header
        )
        return _make_receipt(placed.path, file, self._sha256.digest(), placed.result)


def _make_receipt(path: PurePosixPath, file: Part10File, sha256: bytes, result: StoreResult) -> Receipt:
    header = file.header
    # An object that belongs to no patient has no study and no series.
    study_uid, series_uid = header.get(STUDY_UID, ""), header.get(SERIES_UID, "")
    ref = InstanceRef(study_uid, series_uid, header[SOP_UID], file.sop_class)
    patient_id, accession = header.get(PATIENT_ID, ""), header.get(ACCESSION, "")
    return Receipt(ref, file.transfer_syntax, path, file.size, sha256, result, patient_id, accession)


def _read_receipt(name: str, directory: int, path: PurePosixPath, seen: set[str]) -> Receipt | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None  # a link or a device: not written by a store
    try:
        file = read_part10(fd, IDENTIFIERS | {SCAN_TO_END})
        if not file or not all(is_uid(file.header.get(tag, "")) for tag in (STUDY_UID, SERIES_UID, SOP_UID)):
            return None
        result = StoreResult.CONFLICT if file.header[SOP_UID] in seen else StoreResult.STORED
        seen.add(file.header[SOP_UID])
        return _make_receipt(path, file, compute_digest(fd), result)
    finally:
        os.close(fd)


def _start_writeback(fd: int, start: int, end: int) -> None:
    """Start writing in the kernel, so that fdatasync has little left to do."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # advice only
            os.posix_fadvise(fd, start, end - start, os.POSIX_FADV_DONTNEED)


def _write_all(fd: int, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
    written = os.writev(fd, buffers)
    for buffer in buffers:
        if written >= len(buffer):
            written -= len(buffer)
            continue
        rest = memoryview(buffer)[written:]
        written = 0
        while rest:
            rest = rest[os.write(fd, rest) :]
