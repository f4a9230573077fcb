"""Search for the values of a few attributes anywhere in a dataset, sequences included.

The search looks for the bytes of the tags, and does not follow the structure. So it also finds values in
sequences of any depth, of unknown VR (PS3.5 6.2.2) and in damaged ones. Bytes that look like a tag by chance
give values that are no identifiers. The search is for comparisons with a list alone: the identity of a
dataset comes from :class:`dicom_quarry.wire.header_scan.HeaderScan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.data_dictionary import LONG_VRS

#: Maximum bytes of a value: an identifier has 64 characters, and there may be several.
_MAX_VALUE: Final = 1 << 14
#: Maximum different values of one tag, more than an enhanced image has frames.
_MAX_VALUES: Final = 10_000
#: Bytes that are searched at once, so that bytes that come one by one cost little.
_STEP: Final = 1 << 12
_HEADER: Final = 12
_LONG_VRS: Final = frozenset(vr.encode() for vr in LONG_VRS)


class IdentifierSearch:
    """A search through bytes that come in pieces; ``found`` are the different values of each tag."""

    def __init__(self, tags: Iterable[int], order: str) -> None:
        tag_bytes = Struct(order + "HH").pack
        self._patterns = [(tag, tag_bytes(tag >> 16, tag & 0xFFFF)) for tag in tags]
        self._short, self._long = Struct(order + "H").unpack_from, Struct(order + "L").unpack_from
        self._unsearched = bytearray()
        self._next_size = _STEP
        self.found: dict[int, set[bytes]] = {tag: set() for tag, _ in self._patterns}

    def feed(self, data: memoryview | bytes) -> None:
        """Search the next bytes; raises RemoteProtocolError for a flood of identifiers."""
        self._unsearched += data
        if len(self._unsearched) >= self._next_size:
            self._search()

    def end(self) -> None:
        """Search the last bytes; a later ``feed`` does not continue them. Raises RemoteProtocolError."""
        self._search()
        self._unsearched.clear()

    def _search(self) -> None:
        text = bytes(self._unsearched)
        # An element that is not complete is searched again with the next bytes.
        keep = max(0, len(text) - _HEADER + 1)
        for tag, pattern in self._patterns:
            at = text.find(pattern)
            while at >= 0:
                if not self._read_value(self.found[tag], text, at):
                    keep = min(keep, at)
                at = text.find(pattern, at + 1)
            if len(self.found[tag]) > _MAX_VALUES:
                raise RemoteProtocolError(
                    f"the dataset has more than {_MAX_VALUES} different values of "
                    f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
                )
        del self._unsearched[:keep]
        self._next_size = len(self._unsearched) + _STEP

    def _read_value(self, values: set[bytes], text: bytes, at: int) -> bool:
        """Add the value of the element at this offset; return False if more bytes are needed."""
        vr, body = text[at + 4 : at + 6], at + 8
        if body > len(text):
            return False
        short = self._short(text, at + 6)[0]
        if vr != b"??" and not (vr.isalpha() and vr.isupper()):
            length = self._long(text, at + 4)[0]
        elif vr not in _LONG_VRS or (vr == b"UN" and short):
            length = short
        elif at + _HEADER > len(text):
            return False
        else:
            length, body = self._long(text, at + 8)[0], at + _HEADER
        if not 0 < length <= _MAX_VALUE:
            return True
        if body + length > len(text):
            return False
        values.add(text[body : body + length])
        return True
