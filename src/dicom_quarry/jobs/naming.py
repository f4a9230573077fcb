"""The rule by which values become file names: chosen once for a folder, and recorded.

A job records it in its ledger, a folder of ``quarry receive`` in a file. Without an entry the folder was
begun before rules were recorded, and keeps the rule of that time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.store.safe_names import NameRule
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.file_systems import distinguishes_names

#: The name of the entry in a job's record, and of the file of a receiver.
NAMES: Final = "names"

#: For the user of a job with portable names who did not choose them in this run.
PORTABLE_NOTE: Final = (
    "in folder names a mark shows small letters: abc123 becomes abc123~. This disk does not distinguish them "
    "from capitals, or the job was begun with --portable-names"
)


def choose_names(folder: Path, *, portable: bool) -> NameRule:
    """Choose the rule for a new output folder, by a test on its disk. Raises InputError.

    ``portable``: the user wants names for any disk.
    """
    if portable:
        return NameRule.PORTABLE
    try:
        return NameRule.VALUES if distinguishes_names(folder) else NameRule.PORTABLE
    except OSError as error:
        raise InputError(f"{folder} cannot be used: {error.strerror}") from error


def recorded_names(metadata: Mapping[str, str]) -> NameRule:
    """Return the rule of a job. Raises LedgerError for one of a later version."""
    text = metadata.get(NAMES, NameRule.LEGACY)
    try:
        return NameRule(text)
    except ValueError:
        raise LedgerError(
            f"the files of this job are named by a rule of another version of Quarry ({text}): use it"
        ) from None


def check_names(recorded: NameRule, folder: Path, *, portable: bool) -> None:
    """Raise InputError if portable names are wanted for a folder whose names are not."""
    if portable and recorded is NameRule.VALUES:
        raise InputError(
            f"the files in {folder} are named without --portable-names, and they keep their names: leave it "
            "out (in quarry.toml: portable-names), or give another folder"
        )


def begin_or_continue_names(folder: Path, state: Path, *, is_new: bool, portable: bool) -> NameRule:
    """Return the rule of a folder without a job, from the file in ``state``; choose it if ``is_new``.

    Raises InputError.
    """
    path = state / NAMES
    try:
        if is_new:
            rule = choose_names(folder, portable=portable)
            with atomic_write_text(path) as file:
                file.write(f"{rule}\n")
            return rule
        rule = NameRule(path.read_text(encoding="ascii").strip()) if path.exists() else NameRule.LEGACY
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} should have the rule by which the files of this folder are named, and cannot be used "
            f"({error}). Receive into another folder"
        ) from None
    check_names(rule, folder, portable=portable)
    return rule
