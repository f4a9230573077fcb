"""The files of a finished job that is run again: compared by size, and fetched again if a few are lost."""

from __future__ import annotations

import shlex
import time
from contextlib import closing

from dicom_quarry.api.result import report_access
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.file_state import FileDamage, record_damage
from dicom_quarry.ledger.stored_files import StoredFilesReader
from dicom_quarry.ledger.views import DamagedView
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.csv_reports import write_damaged
from dicom_quarry.system.durations import format_duration
from dicom_quarry.verification import quarantine
from dicom_quarry.verification.damage_record import read_job_damage
from dicom_quarry.verification.quick_check import QuickCheck, check_sizes

#: Studies whose lost files are fetched again at once: at most a tenth of all, or this number. More, or whole
#: studies, are rather a disk that is not mounted, or studies that were moved on purpose.
_FEW_STUDIES = 10


def check_finished(runner: Runner, end: JobResult) -> JobResult:
    """Compare the sizes of the files; fetch a few lost ones again, or record them for the user to decide."""
    folder, report = end.folder, runner.queries.observer.on_message
    check = check_sizes(folder)
    report(_describe_check(check))
    if not check.lost:
        _clear_lost(folder, check)
        return end
    studies = len(check.study_uids)
    if not check.gone_studies and studies <= max(_FEW_STUDIES, end.counts.studies // 10):
        report(f"the files of {format_count(studies, 'study')} are fetched again")
        result = quarantine.refetch(runner, check.study_uids, is_damage=False)
        _clear_lost(folder, check)
        return result
    _record_lost(folder, check)
    report(
        f"files of {format_count(studies, 'study')} are gone. Is the disk of {folder.out} mounted? If you "
        f"moved these studies elsewhere: quarry release {shlex.quote(folder.label)}"
    )
    return end


def _clear_lost(folder: JobPlace, check: QuickCheck) -> None:
    """Remove from the record lost files of an earlier check; damage of another kind stays."""
    before = read_job_damage(folder)
    if before is not None and before.by_size and check.files >= check.total:
        record_damage(folder.ledger, before, None)


def _describe_check(check: QuickCheck) -> str:
    part = "" if check.files >= check.total else f" of {check.total:,} (quarry verify --quick compares all)"
    took = format_duration(check.seconds) if check.seconds >= 1 else f"{check.seconds:.1f} s"
    found = f"{len(check.lost):,} missing or of another size" if check.lost else "all are there"
    return f"{format_count(check.files, 'file')}{part} compared by size in {took}: {found}"


def _record_lost(folder: JobPlace, check: QuickCheck) -> None:
    """Record lost files in the job, and list them in damaged.csv, from which they can be fetched again."""
    with closing(StoredFilesReader(folder.ledger)) as reader:
        rows = {task: reader.rows_of(task) for task in {one.file.task_id for one in check.lost}}
    views = (
        DamagedView(
            rows[one.file.task_id],
            one.file.path,
            one.file.study_uid,
            one.file.series_uid,
            one.file.sop_uid,
            one.code,
            one.problem,
            one.file.size,
            one.file.digest.hex(),
        )
        for one in check.lost
    )
    write_damaged(folder.out / "damaged.csv", views, permissions=report_access(folder))
    damage = FileDamage(len(check.lost), "quarry extract", time.time(), by_size=True)
    record_damage(folder.ledger, read_job_damage(folder), damage)
