"""Text from outside made harmless in the cells of a table that people open in a spreadsheet."""

from __future__ import annotations

import re
from typing import Final

from dicom_quarry.cohort.cell_values import escape_text

#: Where a spreadsheet would begin to compute: at the start of a cell, and after a semicolon, which splits
#: cells in the locales that write decimals with a comma. Japanese ones take the wide forms too.
FORMULA_START: Final = re.compile(r"(^|;)(\s*)(?=[=+\-@＝＋－＠])")


def escape_cell(text: str) -> str:
    """Text from the archive for a cell: control characters become visible, a formula is only shown."""
    escaped = escape_text(text, limit=len(text))
    if escaped[:1].isalnum() and ";" not in escaped:
        return escaped  # as nearly all are, millions of them: no formula begins like that
    return FORMULA_START.sub(r"\1\2'", escaped)
