"""The state of the files in words: those that are damaged or missing, and a comparison by workers."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.ledger.file_state import FileDamage
from dicom_quarry.plurals import format_count

if TYPE_CHECKING:
    from dicom_quarry.jobs.cluster.file_check import FileCheckState


def describe_damage(damage: FileDamage | None, out: Path) -> str:
    """Describe recorded damage with the command that mends it; empty if there is none."""
    if damage is None:
        return ""
    when = datetime.fromtimestamp(damage.found_at).astimezone()
    files = format_count(damage.files, "file is", "files are")
    return (
        f"{files} damaged or missing (found by {damage.found_by}, {when:%Y-%m-%d %H:%M}). To fetch what is "
        f"damaged or missing again: quarry retry {shlex.quote(str(out))} --damaged"
    )


def describe_file_check(check: FileCheckState, label: str) -> str:
    """Describe how far the workers have compared the files of a job; empty once a user has seen that."""
    files = format_count(check.done.files, "file")
    damaged = f", {check.damaged:,} damaged or missing"
    if check.is_active:
        return f"the workers compare its files: {files} so far{damaged}"
    if check.ended is None:
        return f"the comparison of its files was stopped after {files}. To continue: quarry verify {label}"
    if check.is_shown:
        return ""
    when = check.ended.astimezone()
    return (
        f"the workers have compared its files, until {when:%Y-%m-%d %H:%M}: {files}{damaged}. To see the "
        f"result: quarry verify {label}"
    )
