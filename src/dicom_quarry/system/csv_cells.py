"""Text from outside made harmless in the cells of a table that people open in a spreadsheet."""

from __future__ import annotations

import re
from typing import Final

from dicom_quarry.cohort.cell_values import visible

#: Where a spreadsheet would begin to compute: at the start of a cell, and after a semicolon, which splits
#: cells in the locales that write decimals with a comma. Japanese ones take the wide forms too.
FORMULA: Final = re.compile(r"(^|;)(\s*)(?=[=+\-@＝＋－＠])")


def harmless(text: str) -> str:
    """Text from the archive for a cell: control characters become visible, a formula is only shown."""
    shown = visible(text, limit=len(text))
    if shown[:1].isalnum() and ";" not in shown:
        return shown  # as nearly all are, millions of them: no formula begins like that
    return FORMULA.sub(r"\1\2'", shown)
