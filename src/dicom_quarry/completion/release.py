"""Studies whose data went elsewhere are released; on request their files are removed, once they are verified.

A release is in the ledger before the first file goes, so that a crash leaves nothing that looks lost: run
again, it removes the rest. It may run beside the job, and from the command that a study is handed over to.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.audit_log import Audit
from dicom_quarry.jobs.folder import JobFolder, holder
from dicom_quarry.jobs.instance_paths import derive_of
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import Derive, Reader
from dicom_quarry.ledger.releases import Releases, Standing
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.model import Study
from dicom_quarry.store.hash_worker import check
from dicom_quarry.version import __version__

_TAKEN_UP = "it has just been taken up again"

#: Files verified at once.
_THREADS = 2


class Became(StrEnum):
    """What became of a study that was to be released."""

    RELEASED = "released"
    BEFORE = "released before"
    HERE = "still here"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Release:
    """A study, and what became of it; ``problem``: why it was kept; ``size``: bytes of ``removed`` files."""

    study_uid: str
    became: Became
    problem: str = ""
    removed: int = 0
    size: int = 0


def release(folder: JobFolder, study_uids: Collection[str], *, delete: bool) -> Iterator[Release]:
    """Release these studies, or all that are complete: those whose files are gone; or, with ``delete``, all.

    Raises InputError for a study that nobody asked for, before anything is done; and StartError while another
    version of Quarry runs the job.
    """
    with closing(Reader(folder.ledger)) as reader, _alone(folder):
        if holder(folder) is not None and reader.facts()["version"] != __version__:
            raise StartError(f"another version of Quarry is at work on {folder.out}: use that one, or wait")
        protocol = Settings.model_validate_json(reader.facts()["settings"]).protocol
        ledger = Ledger(folder.ledger)
        audit = Audit(folder.audit, protocol)
        try:
            releases = Releases(ledger.database)
            work = _Work(folder.out, reader, releases, derive_of(reader), audit, delete=delete)
            for standing in work.named(study_uids) if study_uids else work.releases.open():
                yield work.one(standing)
        finally:
            audit.close()
            ledger.close()


class _Work:
    def __init__(
        self, out: Path, reader: Reader, releases: Releases, derive: Derive, audit: Audit, *, delete: bool
    ) -> None:
        self._out = out
        self._audit = audit
        self._reader = reader
        self.releases = releases
        self._derive = derive
        self._delete = delete

    def named(self, study_uids: Iterable[str]) -> list[Standing]:
        """The studies that the user names; raises InputError."""
        found = []
        for uid in dict.fromkeys(study_uids):
            standing = self.releases.standing(uid)
            if standing is None:
                raise InputError(f"{self._out} has no study {uid}: studies.csv has their UIDs")
            found.append(standing)
        return found

    def one(self, standing: Standing) -> Release:
        """Release one study if it can be."""
        kept = Release(standing.study_uid, Became.KEPT)
        if not standing.complete:
            return replace(kept, problem="it is not complete")
        if standing.released and not standing.removing:
            return Release(standing.study_uid, Became.BEFORE)
        files = list(self._reader.instances(self._derive, study_uid=standing.study_uid))
        here = [one for one in files if (self._out / one.path).exists()]
        if not here:
            if not self._marked(standing, files, removing=False):
                return replace(kept, problem=_TAKEN_UP)
            return Release(standing.study_uid, Became.RELEASED)
        if not self._delete and len(here) == len(files):
            return Release(standing.study_uid, Became.HERE)
        if not self._delete or (len(here) < len(files) and not standing.removing):
            return replace(
                kept, problem=f"{len(here)} of its {len(files)} files are here, the others are not"
            )
        problem = self._damaged(here)
        if not problem and not self._marked(standing, files, removing=True):
            problem = _TAKEN_UP
        return replace(kept, problem=problem) if problem else self._removed(standing, here)

    def _marked(self, standing: Standing, files: list[InstanceView], *, removing: bool) -> bool:
        """Record the release; False if the study is not complete any more."""
        study, size = Study(standing.study_uid, standing.patient_id), sum(one.size for one in files)
        details = "files are removed here" if removing else ""
        self._audit.write("released", study, instances=len(files), bytes=size, details=details)
        return self.releases.release(standing.study_uid, removing=removing)

    def _damaged(self, here: Iterable[InstanceView]) -> str:
        """What is wrong with these files; empty if they are what was recorded."""
        files = list(here)
        root = os.fspath(self._out)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda one: check((root, False, [(str(one.path), one.size, one.digest)])), files)
            bad = [(one, problems[0]) for one, problems in zip(files, found, strict=True) if problems]
        if not bad:
            return ""
        first, (_, said) = bad[0]
        return f"{len(bad)} of its files are damaged: {first.ref.sop_uid} {said}"

    def _removed(self, standing: Standing, here: list[InstanceView]) -> Release:
        for one in here:
            (self._out / one.path).unlink(missing_ok=True)
        _prune(self._out, {(self._out / one.path).parent for one in here})
        self.releases.removed([standing.study_uid])
        return Release(standing.study_uid, Became.RELEASED, "", len(here), sum(one.size for one in here))


def _prune(out: Path, folders: Iterable[Path]) -> None:
    """Remove these folders, and those above them, as far as nothing is left in them."""
    for folder in folders:
        with suppress(OSError):
            for each in (folder, *folder.parents):
                if each == out:
                    break
                each.rmdir()


@contextmanager
def _alone(folder: JobFolder) -> Iterator[None]:
    """One release at a time: another would take what this one removes for missing. Others wait."""
    handle = os.open(folder.state / "release.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
