"""Text from outside made safe to show on a terminal, and in the cells of a spreadsheet."""

from __future__ import annotations

import pytest

from dicom_quarry.system.csv_cells import escape_cell
from dicom_quarry.system.text_safety import escape_text


def test_control_characters_become_escapes() -> None:
    assert escape_text("A\x1b[2J\u202eB\n") == "A\\x1b[2J\\u202eB\\x0a"
    assert escape_text("Zürich, 東京") == "Zürich, 東京"


def test_long_text_is_cut() -> None:
    assert escape_text("x" * 60) == "x" * 60
    assert escape_text("x" * 61) == "x" * 60 + "…"
    assert escape_text("abc", limit=2) == "ab…"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        (" @SUM(A1)", " '@SUM(A1)"),
        ("a;-2", "a;'-2"),
        ("＝1", "'＝1"),
        ("2018-01-02", "2018-01-02"),
        ("1\t2", "1\\x092"),
    ],
)
def test_a_formula_is_shown_and_not_computed(text: str, cell: str) -> None:
    assert escape_cell(text) == cell
