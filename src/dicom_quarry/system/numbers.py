"""Numbers from outside: within a range, or none."""

from __future__ import annotations


def parse_number(text: str, highest: int) -> int | None:
    """Return a number that is written in decimal digits alone.

    None for any other text, and for a number above ``highest``, of however many digits.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(highest)):
        return None
    number = int(digits)
    return number if number <= highest else None
