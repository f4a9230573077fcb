"""The parts of a sheet that are hidden or merged, and the names of its columns."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

#: First and last column, first and last row.
MergedCells = tuple[int, int, int, int]


@dataclass(slots=True)
class SheetLayout:
    """The parts of a sheet that are hidden or merged.

    ``hidden_rows`` are the first rows with values that are not shown, ``hidden_row_count`` counts all.
    ``hidden_columns`` are ranges: first and last column. Columns count from 0.
    """

    hidden_rows: list[int] = field(default_factory=list)
    hidden_row_count: int = 0
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    merges: list[MergedCells] = field(default_factory=list)
    _tops: list[int] = field(default_factory=list, repr=False)
    _lowest: list[int] = field(default_factory=list, repr=False)

    def find_merge(self, line: int, position: int) -> MergedCells | None:
        """Return the merged range of which a cell is a part without a value of its own."""
        if len(self._tops) != len(self.merges):
            self.merges.sort(key=lambda one: one[2])
            self._tops = [one[2] for one in self.merges]
            self._lowest = list(accumulate((one[3] for one in self.merges), max))
        at = bisect_right(self._tops, line) - 1
        # The last row of all ranges up to this one: above it there is none that reaches the line.
        while at >= 0 and self._lowest[at] >= line:
            left, right, top, bottom = one = self.merges[at]
            if left <= position <= right and line <= bottom and (position, line) != (left, top):
                return one
            at -= 1
        return None


def column_letters(position: int) -> str:
    """Return the letters of a column; position 0 is A."""
    letters = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
