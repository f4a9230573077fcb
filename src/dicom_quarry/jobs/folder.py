"""The folders of a job: owner, permissions, logs, and the file systems that they may not be on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.internal_errors import is_internal, log_internal
from dicom_quarry.system.file_systems import file_system_type
from dicom_quarry.system.log_limit import SafeFileHandler
from dicom_quarry.system.ownership import open_own_file, require_own_folder
from dicom_quarry.system.permissions import Permissions

#: File systems on which SQLite's locks and shared memory are unreliable (sqlite.org/wal.html).
_NETWORK_TYPES = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "gpfs",
    "beegfs",
    "pvfs2",
    "orangefs",
    "panfs",
    "coda",
    "davfs",
    "glusterfs",
    "virtiofs",
    "vboxsf",
}

#: FUSE file systems on a local disk; the data of any other may be remote (``fuse.sshfs``, ``fuse.s3fs``).
_LOCAL_FUSE_TYPES = {
    "fuse.bindfs",
    "fuse.encfs",
    "fuse.exfat",
    "fuse.fuse-overlayfs",
    "fuse.gocryptfs",
    "fuse.mergerfs",
    "fuse.ntfs-3g",
}

#: The file in the hidden folder that names the job whose record is in a database.
JOB_FILE = "job.json"

#: Folder below the output folder for images whose patient ID or accession differs from the expected one. It
#: is a reserved name, so no value of an image makes it.
MISMATCH_DIR = "mismatch"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folders of a job: ``out`` is the root of the DICOM tree, ``state`` has the logs and other files."""

    out: Path
    state: Path

    @property
    def log(self) -> Path:
        """The job's log, without patient identifiers."""
        return self.state / "quarry.log"

    @property
    def output_log(self) -> Path:
        """The terminal output of a job in the background."""
        return self.state / "output.log"

    @property
    def incoming(self) -> Path:
        """The folder of instances without a final name yet, on the same file system as the tree."""
        return self.out / ".quarry" / "incoming"


def require_own_state(folder: JobFolder, *, trust_owner: bool) -> None:
    """Raise NotOwned if another user made the job's hidden folder or its state, or may write there.

    Folders that do not exist are accepted. Raises InputError for one that cannot be opened.
    """
    for path in dict.fromkeys((folder.out / ".quarry", folder.state, folder.incoming)):
        try:
            require_own_folder(path, trust_owner=trust_owner)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{path} cannot be used: {error.strerror}") from error


def apply_access(out: Path, access: Permissions) -> None:
    """Give the output folder the permissions of the settings; the state in it stays private.

    Raises InputError if the file system, or the folder's owner, does not allow it.
    """
    if access.is_private:
        return
    try:
        fd = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            access.apply_to_folder(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InputError(
            f"{out} cannot get the permissions of --file-mode and --group ({error.strerror}): leave these "
            "options out, or use a folder on another file system"
        ) from error


def reject_network_file_system(state: Path, remedy: str) -> None:
    """Raise InputError, with the remedy, if a folder is on a network file system."""
    kind = file_system_type(state)
    if kind in _NETWORK_TYPES or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE_TYPES):
        raise InputError(
            f"{state} is on a network file system ({kind}), where the job's record could be damaged: "
            f"keep the record on a local disk {remedy}"
        )


def open_log_file(path: Path) -> SafeFileHandler:
    """Open a log for appending, readable by its owner only. Raises NotOwned for a file of another user."""
    fd = open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if os.fstat(fd).st_uid == os.geteuid():
        os.fchmod(fd, 0o600)
    return SafeFileHandler(os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace"))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write Quarry's log to a file, readable by its owner only, while the context lasts.

    The trace of an internal error that ends the context is logged.
    """
    handler = open_log_file(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("dicom_quarry")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    except Exception as error:
        if is_internal(error):
            log_internal(error, path)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
