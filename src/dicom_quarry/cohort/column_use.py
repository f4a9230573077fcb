"""The columns of a table that are not searched by, for the user to see that none of them was meant."""

from __future__ import annotations

from collections.abc import Container, Sequence

from dicom_quarry.cohort.headers import REPORT_PREFIX, show_header

#: Names of columns that a message shows; the others are counted.
_MAX_SHOWN = 20


def list_other_headers(header: Sequence[str], positions: Container[int]) -> tuple[str, ...]:
    """Return the headers of all columns but those at these positions, and those of an earlier report."""
    return tuple(
        name
        for position, name in enumerate(header)
        if position not in positions and name.strip() and not name.startswith(REPORT_PREFIX)
    )


class ColumnUse:
    """The use of the columns of one table: those that are no key, and the keys without any value.

    ``empty_columns`` are the positions of keys, and of columns without a header, for which no row so far has
    a value. A table has few of them, so :meth:`note_row` need not be called for most rows.
    """

    def __init__(self, header: Sequence[str], key_columns: Sequence[tuple[int, str]]) -> None:
        self._header = header
        self._keys = {position for position, _ in key_columns}
        self._unnamed = {position for position, name in enumerate(header) if not name.strip()} - self._keys
        self.empty_columns = self._keys | self._unnamed

    def note_row(self, cells: Sequence[str]) -> None:
        """Note which of the empty columns have a value in this row."""
        self.empty_columns -= {at for at in self.empty_columns if at < len(cells) and cells[at].strip()}

    @property
    def unused(self) -> tuple[str, ...]:
        """The columns that are not searched by, in their order: the first few, and a count.

        Columns of an earlier report of Quarry are left out.
        """
        found = [
            shown
            for position, name in enumerate(self._header)
            if not name.startswith(REPORT_PREFIX) and (shown := self._describe(position, name))
        ]
        more = len(found) - _MAX_SHOWN
        return (*found[:_MAX_SHOWN], f"and {more:,} more") if more > 0 else tuple(found)

    def _describe(self, position: int, name: str) -> str:
        """Return the name of a column that is not searched by; empty if it is, or has nothing."""
        if position in self._unnamed:
            return "" if position in self.empty_columns else f"column {position + 1} (without a header)"
        if position not in self._keys:
            return show_header(name)[:60]
        return f"{show_header(name)} (empty in every row)" if position in self.empty_columns else ""
