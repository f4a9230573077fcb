"""Files that are damaged or missing, in words."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path

from dicom_quarry.ledger.file_state import FileDamage
from dicom_quarry.plurals import format_count


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
