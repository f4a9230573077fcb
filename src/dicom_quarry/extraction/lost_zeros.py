"""Leading zeros that a spreadsheet dropped: the width of an archive's identifiers, found by exact queries.

A width is tried by a query for the padded value, never by a wildcard: that would find patients that the row
does not name. The width that one row finds is the first that the next rows try.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dicom_quarry.model import Study

#: Widths of patient IDs and accessions, the most frequent first.
_WIDTHS = (7, 8, 10, 9, 6, 12, 11, 5)
_ATTRIBUTES = {"PatientID": "patient_id", "AccessionNumber": "accession"}


class LostZeros:
    """The widths of numeric identifiers in the archives of one job, as far as its rows found them."""

    def __init__(self) -> None:
        self._found: dict[str, int] = {}
        self._matched: dict[str, int] = {}
        self._tried = 0
        self._suggested: dict[str, int] = {}

    def note_match(self, keys: Mapping[str, str]) -> None:
        """Note that the archive has studies for these keys: it has identifiers of this width."""
        for keyword in _ATTRIBUTES:
            value = keys.get(keyword, "")
            if value.isdecimal():
                self._matched[keyword] = min(len(value), self._matched.get(keyword, len(value)))

    def padded_values(self, keyword: str, value: str, tries: int) -> Iterator[str]:
        """Yield the values with zeros in front that a row should try; none if its value is not a number.

        The rows of a job try one width after another, ``tries`` of them each, until one is found.
        """
        if not value.isdecimal():
            return
        if width := self._found.get(keyword):
            widths = [width]
        else:
            wider = [one for one in _WIDTHS if one > len(value)]
            start = self._tried % max(len(wider), 1)
            self._tried += tries
            widths = (wider[start:] + wider[:start])[:tries]
        yield from (value.zfill(width) for width in widths if width > len(value))

    def describe(self, keyword: str, value: str, study: Study) -> str:
        """Describe the zeros that a value lacks to be that of a study; empty if zeros are not the difference.

        The option is suggested unless the archive has shorter identifiers, too, which it would change.
        """
        has = getattr(study, _ATTRIBUTES[keyword])
        if not (value.isdecimal() and has.isdecimal() and has != value and has == value.zfill(len(has))):
            return ""
        self._found[keyword] = len(has)
        name = "patient ID" if keyword == "PatientID" else "accession"
        found = f"the archive has the {name} as {has}"
        if not self._may_pad(keyword, len(has)):
            return found
        return f"{found}: if Excel dropped zeros, add --pad {keyword}={len(has)}"

    def _may_pad(self, keyword: str, width: int) -> bool:
        """Return False if the archive has shorter identifiers, too, which padding would change."""
        return self._matched.get(keyword, width) >= width

    def take_suggestion(self) -> str:
        """Return what the user should know once for the whole table; empty if there is nothing new.

        Unlike the reason of a row it contains no identifier.
        """
        for keyword, width in self._found.items():
            if self._may_pad(keyword, width) and self._suggested.get(keyword) != width:
                self._suggested[keyword] = width
                return (
                    f"rows have no match, but the archive has their {keyword} with zeros in front: if Excel "
                    f"dropped zeros, add --pad {keyword}={width} (and --update, if the job exists)"
                )
        return ""
