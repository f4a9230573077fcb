"""A verification of files together with the proof of the job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dicom_quarry import api
from dicom_quarry.api import ProofCheck
from dicom_quarry.cli.console import out
from dicom_quarry.errors import InputError

_MAX_SHOWN = 20


def verify_with_proof(
    folder: Path, manifest: Path | None, public_key: Path | None, verify_files: Callable[[], bool]
) -> bool:
    """Check the proof in a folder, then the files; show both, and return whether everything is unchanged.

    ``verify_files`` compares the files, and returns whether they are unchanged.
    """
    check = api.check_proof(folder, manifest=manifest, public_key=public_key)
    _show_check(folder, check)
    try:
        is_same = verify_files()
    except InputError as error:
        if check.holds:
            raise
        out.print(f"The files were not compared: {error}")
        is_same = False
    if check.holds and is_same:
        out.print(
            "The proof holds: all that was compared is as it was at that time. It proves nothing against its "
            "maker, unless its SHA-256 was deposited elsewhere before"
        )
    else:
        out.print("The proof does not hold, for the reasons above")
    return check.holds and is_same


def _show_check(folder: Path, check: ProofCheck) -> None:
    written = f" of {check.written}" if check.written else ""
    out.print(f"proof.json{written}, SHA-256 {check.sha256}")
    for text in check.checked:
        out.print(f"  unchanged: {text}")
    for text in check.unchecked:
        out.print(f"  not checked: {text}")
    for text in check.differences[:_MAX_SHOWN]:
        out.print(f"  differs: {text}")
    if len(check.differences) > _MAX_SHOWN:
        out.print(f"  … and {len(check.differences) - _MAX_SHOWN:,} more differences")
    if check.outdated:
        out.print(f"  {check.outdated}. To write a new one: quarry report {folder}")
