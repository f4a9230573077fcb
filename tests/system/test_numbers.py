"""Numbers from outside have a range, and any number of digits."""

from __future__ import annotations

import pytest

from dicom_quarry.system.numbers import parse_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("7", 7),
        ("0" * 9000 + "99", 99),
        ("100", 100),
        ("101", None),
        ("9" * 9000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        (" 1", None),
        ("\u0661", None),
        ("\u00b2", None),
    ],
)
def test_a_number_is_digits_within_its_range(text: str, number: int | None) -> None:
    assert parse_number(text, 100) == number
