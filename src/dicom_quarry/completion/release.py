"""Releases complete studies whose data is elsewhere; verifies and removes their files on request.

A release is recorded before the first file is removed, so that after a crash no file seems to be lost; the
next release removes the rest. A release may run during the job, also from its on-complete command.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from dicom_quarry.config.settings import parse_recorded_settings
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.jobs.instance_paths import load_path_function
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader, PathFunction
from dicom_quarry.ledger.releases import Releases, ReleaseState
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.model import Study
from dicom_quarry.plurals import format_count
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.hash_worker import compare_batch
from dicom_quarry.store.moving import remove_empty_folders
from dicom_quarry.version import __version__

_NO_LONGER_COMPLETE = "the job is fetching it again"

#: Files verified at once.
_THREADS = 2


class ReleaseOutcome(StrEnum):
    """The result of a release for one study."""

    RELEASED = "released"
    ALREADY_RELEASED = "released before"
    STILL_PRESENT = "still here"
    NOT_RELEASED = "kept"


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """A study and the result of its release.

    ``problem`` is the reason why a study is not released; ``size`` is in bytes, of the ``removed`` files.
    """

    study_uid: str
    outcome: ReleaseOutcome
    problem: str = ""
    removed: int = 0
    size: int = 0


def release_studies(
    folder: JobPlace, study_uids: Collection[str], *, delete: bool
) -> Iterator[ReleaseResult]:
    """Release the given studies, or all complete ones; without ``delete`` only those whose files are gone.

    Raises InputError for a study that the job does not have, before any release, and StartError while another
    version of Quarry runs the job.
    """
    # One release at a time: another would find the files missing that this one removes.
    with closing(LedgerReader(folder.ledger)) as reader, folder.named_lock("release"):
        if folder.holder() is not None and reader.metadata()["version"] != __version__:
            raise StartError(f"another version of Quarry works on {folder.label}: use that version, or wait")
        which = format_count(len(study_uids), "study", "studies") if study_uids else "all complete studies"
        folder.note_action(
            "release_requested", f"{which}; {'files are removed' if delete else 'files are elsewhere'}"
        )
        protocol = parse_recorded_settings(reader.metadata()).protocol
        ledger = Ledger(folder.ledger)
        audit_log = folder.open_audit_log(ledger, protocol)
        try:
            releases = Releases(ledger.database)
            releaser = _Releaser(
                folder.out, reader, releases, load_path_function(reader), audit_log, delete=delete
            )
            for state in (
                releaser.find_named(study_uids) if study_uids else releaser.releases.releasable_studies()
            ):
                yield releaser.release_one(state)
        finally:
            audit_log.close()
            ledger.close()


class _Releaser:
    def __init__(
        self,
        out: Path,
        reader: LedgerReader,
        releases: Releases,
        path_of: PathFunction,
        audit_log: AuditLog,
        *,
        delete: bool,
    ) -> None:
        self._out = out
        self._audit_log = audit_log
        self._reader = reader
        self.releases = releases
        self._path_of = path_of
        self._delete = delete

    def find_named(self, study_uids: Iterable[str]) -> list[ReleaseState]:
        """Return the state of the studies that the user names; raises InputError for an unknown one."""
        found = []
        for uid in dict.fromkeys(study_uids):
            state = self.releases.read_state(uid)
            if state is None:
                raise InputError(f"{self._out} has no study {uid}: studies.csv has the UIDs of its studies")
            found.append(state)
        return found

    def release_one(self, state: ReleaseState) -> ReleaseResult:
        """Release one study if possible; report the result."""
        kept = ReleaseResult(state.study_uid, ReleaseOutcome.NOT_RELEASED)
        if not state.complete:
            return replace(kept, problem="it is not complete")
        if state.released and not state.removing:
            return ReleaseResult(state.study_uid, ReleaseOutcome.ALREADY_RELEASED)
        files = list(self._reader.instances(self._path_of, study_uid=state.study_uid))
        present = [one for one in files if (self._out / one.path).exists()]
        if not present:
            if not self._record_release(state, files, removing=False):
                return replace(kept, problem=_NO_LONGER_COMPLETE)
            return ReleaseResult(state.study_uid, ReleaseOutcome.RELEASED)
        if not self._delete and len(present) == len(files):
            return ReleaseResult(state.study_uid, ReleaseOutcome.STILL_PRESENT)
        if not self._delete or (len(present) < len(files) and not state.removing):
            of_all = f"{len(present):,} of its {format_count(len(files), 'file')}"
            return replace(kept, problem=f"{of_all} exist, the others are missing")
        problem = self._find_damage(present)
        if not problem and not self._record_release(state, files, removing=True):
            problem = _NO_LONGER_COMPLETE
        return replace(kept, problem=problem) if problem else self._remove_files(state, present)

    def _record_release(self, state: ReleaseState, files: list[InstanceView], *, removing: bool) -> bool:
        """Record the release; False if the study is not complete any more."""
        study, size = Study(state.study_uid, state.patient_id), sum(one.size for one in files)
        details = "files are removed here" if removing else ""
        self._audit_log.write("released", study, instances=len(files), bytes=size, details=details)
        return self.releases.mark_released(state.study_uid, removing=removing)

    def _find_damage(self, present: Iterable[InstanceView]) -> str:
        """Describe the damage of these files; empty if all are as recorded."""
        files = list(present)
        root = os.fspath(self._out)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(
                lambda one: compare_batch((root, False, [(str(one.path), one.size, one.digest)])), files
            )
            bad = [(one, problems[0]) for one, problems in zip(files, found, strict=True) if problems]
        if not bad:
            return ""
        first, (_, problem) = bad[0]
        return f"{len(bad)} of its files are damaged: {first.ref.sop_uid} {problem}"

    def _remove_files(self, state: ReleaseState, present: list[InstanceView]) -> ReleaseResult:
        directories = Directories(self._out)
        for one in present:
            directories.unlink(one.path)
        remove_empty_folders(self._out, {(self._out / one.path).parent for one in present})
        self.releases.mark_removed([state.study_uid])
        return ReleaseResult(
            state.study_uid, ReleaseOutcome.RELEASED, "", len(present), sum(one.size for one in present)
        )
