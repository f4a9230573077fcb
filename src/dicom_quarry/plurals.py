"""Numbers with their nouns, in the singular and the plural."""

from __future__ import annotations


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Format a number with its noun: ``1 study``, ``2,345 instances``.

    ``noun`` is the singular; a ``plural`` is needed only where it is not formed as usual.
    """
    return f"{number:,} {noun if number == 1 else plural or _plural(noun)}"


def format_part(part: int, total: int, noun: str, plural: str = "") -> str:
    """Format a part of a number with the noun of that number: ``1 of 1 row``, ``1 of 3 rows``."""
    return f"{part:,} of {format_count(total, noun, plural)}"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun == "series" else f"{noun}s"
