"""Numbers with their nouns."""

import pytest

from dicom_quarry.plurals import format_count, format_part


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "row", "0 rows"),
        (1, "row", "1 row"),
        (2, "row", "2 rows"),
        (1, "study", "1 study"),
        (2345, "study", "2,345 studies"),
        (2, "query", "2 queries"),
        (2, "day", "2 days"),
        (2, "series", "2 series"),
        (1, "series", "1 series"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, noun: str, text: str) -> None:
    assert format_count(number, noun) == text


def test_a_part_has_the_noun_of_the_whole() -> None:
    assert format_part(1, 1, "instance") == "1 of 1 instance"
    assert format_part(1, 3, "instance") == "1 of 3 instances"
    assert format_count(1, "row needs", "rows need") == "1 row needs"
