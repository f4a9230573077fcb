"""Cells of tables that people open in a spreadsheet: text from outside must not run there as a formula."""

from __future__ import annotations

import re
from typing import Final

from dicom_quarry.system.text_safety import escape_text

#: Where a spreadsheet starts to compute: at the start of a cell, and after a semicolon, which separates
#: cells in the locales that write decimals with a comma. Japanese locales accept the wide forms too.
FORMULA_START: Final = re.compile(r"(^|;)(\s*)(?=[=+\-@＝＋－＠])")


def escape_cell(text: str) -> str:
    """Return the text for a cell: control characters as escapes, an apostrophe in front of a formula."""
    escaped = escape_text(text, limit=len(text))
    if escaped[:1].isalnum() and ";" not in escaped:
        return escaped  # nearly all of millions of cells: no formula begins like that
    return FORMULA_START.sub(r"\1\2'", escaped)
