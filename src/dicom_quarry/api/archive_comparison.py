"""A job's record compared with the archive, and studies fetched again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicom_quarry.api.result import report_access
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.open_place import find_folder, open_existing
from dicom_quarry.ledger.views import ChangeView
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.csv_reports import write_changes
from dicom_quarry.verification import archive_diff, quarantine
from dicom_quarry.verification.archive_diff import GONE, NEW, NOT_COMPARED, STUDY_GONE, ArchiveDiff
from dicom_quarry.verification.damage_record import DAMAGE_CODES
from dicom_quarry.verification.quarantine import read_study_uids

_CHANGE_DESCRIPTIONS = {
    NEW: "with new instances, {instances}",
    GONE: "without instances that were there before, {instances}",
    STUDY_GONE: "no longer in the archive",
    NOT_COMPARED: "could not be compared",
}


def refetch(out: Path, runner: Runner, *, damaged: bool, changed: bool) -> JobResult:
    """Fetch again what verify found: damaged files, or studies with new instances in the archive.

    Raises InputError where verify has left no list of these.
    """
    folder, study_uids = find_folder(out), list[str]()
    if damaged:
        study_uids += read_study_uids(folder / "damaged.csv", DAMAGE_CODES, f"quarry verify {out}")
    if changed:
        study_uids += read_study_uids(
            folder / "changes.csv", frozenset({NEW}), f"quarry verify {out} --against-archive"
        )
    return quarantine.refetch(runner, list(dict.fromkeys(study_uids)), is_damage=damaged)


def compare_with_archive(out: Path, runner: Runner, *, restart: bool) -> ArchiveDiff:
    """List every complete study again, and write the differences to changes.csv, if there are any."""
    trust_owner = runner.queries.settings.trust_owner
    folder = open_existing(out, check_owner=True, trust_owner=trust_owner)
    path = folder.out / "changes.csv"

    def write(changes: Iterator[ChangeView]) -> None:
        if not write_changes(path, changes, permissions=report_access(folder)):
            path.unlink(missing_ok=True)

    return archive_diff.compare(runner.queries, folder, write, restart=restart)


def archive_diff_lines(out: Path, diff: ArchiveDiff) -> list[str]:
    """Describe a comparison that has ended, and what to do about new instances."""
    unchanged = diff.studies - diff.changed_studies
    listed = format_count(diff.studies, "complete study", "complete studies")
    lines = [f"{listed} listed again: {unchanged:,} unchanged"]
    for code, description in _CHANGE_DESCRIPTIONS.items():
        if diff.studies_by_code.get(code):
            studies = format_count(diff.studies_by_code[code], "study")
            instances = format_count(diff.instances_by_code[code], "instance")
            lines.append(f"  {studies} {description.format(instances=instances)}")
    if diff.changed_studies:
        lines.append(f"List of changes: {find_folder(out) / 'changes.csv'}. Nothing was fetched")
    if diff.studies_by_code.get(NEW):
        lines.append(f"To fetch the new instances: quarry retry {out} --changed")
    return lines
