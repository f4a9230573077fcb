"""Reasons that are collected for a person: ten different ones, and the number of all others."""

from __future__ import annotations

from dicom_quarry.plurals import format_count

_MAX_REASONS = 10

#: Characters of one reason: an archive's own words may be in it.
_MAX_LENGTH = 1000


class Reasons:
    """Different reasons in the order in which they came; memory does not grow with their number."""

    def __init__(self) -> None:
        self._first: dict[str, None] = {}
        self._others = 0

    def __bool__(self) -> bool:
        return bool(self._first)

    def add(self, reason: str) -> None:
        """Add a reason; one that is there already counts once."""
        reason = reason[:_MAX_LENGTH]
        if reason in self._first:
            return
        if len(self._first) < _MAX_REASONS:
            self._first[reason] = None
        else:
            self._others += 1

    def __str__(self) -> str:
        """Return them as one text."""
        others = [f"and {format_count(self._others, 'other')}"] if self._others else []
        return "; ".join([*self._first, *others])
