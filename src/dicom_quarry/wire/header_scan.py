"""Streaming scan for a few top-level attributes of a dataset (PS3.5 section 7, annex A).

:class:`HeaderScan` reads up to the first element above the highest requested tag, and keeps only the
requested values. It skips sequences and long values of any length and depth by counting bytes. For tags that
are requested ``ANYWHERE`` it reads on up to the pixel data, and also finds values inside of sequences. The
values are known then, and the dataset can be stored while the rest of it comes. The rest is scanned, too: a
requested tag in it refuses the dataset, and values ``ANYWHERE`` are added.

It accepts what pydicom accepts: a dataset that is implicit although its transfer syntax is explicit (and the
reverse), single elements without a VR, unknown VRs, elements out of order below the highest requested tag (of
several with one tag, the last counts), odd lengths, group 0002 in the dataset. It differs from pydicom on
purpose in that it

- refuses a requested tag above which a tag was that ended the search for it: readers would take the last;
- refuses a dataset that ends within an element, where pydicom shortens the value;
- refuses anything but items in a value of undefined length, where pydicom searches for a delimiter;
- skips an item of defined length by its length, where pydicom looks inside for a delimiter;
- decodes bytes that do not fit the declared character set as Latin-1, where pydicom substitutes U+FFFD: two
  patients must not become one;
- reads a requested value of unknown VR as text, where pydicom refuses or gives bytes;
- reads a length of 16 bits after the VR ``??``, and after UN if its reserved bytes are not zero;
- accepts deflated data with a zlib header (RFC 1950), where PS3.5 A.5 has none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import lru_cache
from struct import Struct
from typing import Final

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.data_dictionary import LONG_VRS, SHORT_VRS
from dicom_quarry.wire.element_values import decode_anywhere, decode_text
from dicom_quarry.wire.identifier_search import IdentifierSearch
from dicom_quarry.wire.inflater import Inflater

#: No element has this tag. A scan for it reads to the end of the dataset, and so proves it complete.
SCAN_TO_END: Final = 0xFFFFFFFF
#: Added to a tag, it requests all values of that tag outside of the pixel data, at any depth of sequences,
#: joined by back-slashes. They are for comparisons with exclusion lists, never for the dataset's identity.
ANYWHERE: Final = 1 << 32

_IMPLICIT: Final = "1.2.840.10008.1.2"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
#: Deflated Explicit VR Little Endian, and JPIP (HTJ2K) Referenced Deflate (PS3.5 A.5, A.7, A.14).
_DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_CHARSET: Final = 0x00080005
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF

#: The group of pixel data of every kind.
_PIXELS: Final = 0x7FE0

_MAX_VALUE: Final = 1 << 16
_INFLATE_STEP: Final = 1 << 16
_MAX_INFLATED: Final = 1 << 28
#: The most bytes of a deflated dataset as a whole: as many as one element can have.
_MAX_INFLATED_DATASET: Final = 1 << 32

_LONG_VRS: Final = frozenset(vr.encode() for vr in LONG_VRS)
_SHORT_VRS: Final = frozenset(vr.encode() for vr in SHORT_VRS)

# tag, VR and short length; tag and long length; long length
_STRUCTS: Final = {
    order: (
        Struct(order + "HH2sH").unpack_from,
        Struct(order + "HHL").unpack_from,
        Struct(order + "L").unpack_from,
    )
    for order in "<>"
}


class HeaderScan:
    """Scan of a dataset that comes in pieces, for the values of ``tags``.

    ``values`` is filled once ``is_done``: text without padding (spaces and NULs around each value), decoded
    by (0008,0005); several values stay joined by back-slashes as in the data; numbers are written in decimal.
    An attribute that is absent, or whose value is a sequence, is absent; one without a value is ``""``.

    ``tags`` with ``ANYWHERE`` change none of the other values. A dataset that is damaged above the highest
    other tag is not refused for it: the rest of it is searched to the end. ``has_late_values``: ``end`` added
    values ``ANYWHERE`` to those that were known when ``is_done`` became true.
    """

    __slots__ = (
        "_at_first_element",
        "_carry",
        "_depth",
        "_explicit",
        "_highest",
        "_implicit_depth",
        "_inflate",
        "_inflated",
        "_item_due",
        "_long",
        "_need",
        "_order",
        "_past_tags",
        "_raw",
        "_requested",
        "_rest",
        "_search",
        "_searches",
        "_skip",
        "_tag_long",
        "_tag_short",
        "_wanted",
        "has_late_values",
        "is_done",
        "values",
    )

    def __init__(self, transfer_syntax: str, tags: Iterable[int]) -> None:
        self._requested, self._wanted, self._highest, searched = _sort_tags(frozenset(tags))
        self._order = ">" if transfer_syntax == _BIG_ENDIAN else "<"
        self._search = IdentifierSearch(searched, self._order) if searched else None
        self._searches = self._search is not None  # the bytes that come belong to the search
        self._rest: IdentifierSearch | None = None  # behind damage, for requested tags
        self._past_tags = False  # all values are known but those of the search
        self._tag_short, self._tag_long, self._long = _STRUCTS[self._order]
        self._inflate = Inflater() if transfer_syntax in _DEFLATED else None
        self._inflated = 0
        self._explicit = transfer_syntax != _IMPLICIT
        self._implicit_depth = 0  # depth of the item in which implicit VR began
        self._at_first_element = True  # at the first element of the dataset or of an item
        self._depth = 0  # open values of undefined length
        self._item_due = False  # an item, or the end of the sequence, must come next
        self._skip = 0  # bytes of a value that are still to be skipped
        self._need = 8  # bytes that the next step needs
        self._carry = bytearray()
        self._raw: dict[int, tuple[str, bytes]] = {}
        self.is_done = self.has_late_values = False
        self.values: dict[int, str] = {}

    def feed(self, data: memoryview | bytes) -> bool:
        """Scan the next bytes; return True once all values are known. Raises RemoteProtocolError."""
        if self._inflate is None:
            self._consume(data)
        else:
            self._consume_deflated(data)
        return self.is_done

    def end(self) -> None:
        """Finish at the end of the dataset.

        Raises RemoteProtocolError if it ends within an element, or if another value of a requested tag is
        behind damage.
        """
        if not self.is_done:
            cut = self._inflate is not None and not self._inflate.eof
            if not self._past_tags and (cut or self._carry or self._skip or self._depth):
                raise RemoteProtocolError("the dataset ends within an element")
            self._finish()
        elif self._search is not None and self._searches:
            known = dict(self.values)
            self._add_searched_values(self._search)
            self.has_late_values = self.values != known
        if self._rest is not None:
            self._rest.end()
            for tag, found in self._rest.found.items():
                if {value.strip(b" \0") for value in found} - {
                    self._raw.get(tag, ("", b""))[1].strip(b" \0")
                }:
                    raise _out_of_order(tag)

    def _consume_deflated(self, data: memoryview | bytes) -> None:
        inflate = self._inflate
        assert inflate is not None
        while not inflate.eof:
            try:
                piece = inflate.decompress(data, _INFLATE_STEP)
            except zlib.error:
                if self._past_tags:
                    self._finish()
                    return
                raise RemoteProtocolError("the deflated dataset is damaged") from None
            data = inflate.unconsumed_tail
            self._inflated += len(piece)
            if self._inflated > _MAX_INFLATED and not self.is_done:
                raise RemoteProtocolError(
                    f"the deflated dataset has more than {_MAX_INFLATED} bytes before its identifiers"
                )
            if self._inflated > _MAX_INFLATED_DATASET:
                raise RemoteProtocolError(f"the deflated dataset has more than {_MAX_INFLATED_DATASET} bytes")
            if piece:
                self._consume(piece)
            elif not data:
                return

    def _consume(self, data: memoryview | bytes) -> None:
        if self._search is not None and self._searches:
            self._search.feed(data)
        if self._rest is None:
            self._consume_elements(data)
        else:
            self._rest.feed(data)

    def _consume_elements(self, data: memoryview | bytes) -> None:
        if self._skip:
            if self._skip >= len(data):
                self._skip -= len(data)
                return
            data = data[self._skip :]
            self._skip = 0
        if self._carry:
            self._carry += data
            if len(self._carry) < self._need:
                return
            data = bytes(self._carry)
            self._carry.clear()
        at = self._scan_elements(data)
        if at < len(data):
            self._carry += data[at:]

    def _scan_elements(self, data: memoryview | bytes) -> int:
        """Scan whole elements; return the offset of the first one that is not complete."""
        at, size = 0, len(data)
        while size - at >= 8:
            if self._explicit and not self._depth and not self._at_first_element:
                at = self._scan_short_elements(data, at, size - 8)
                if at > size - 8:
                    break
            after = self._item(data, at) if self._item_due else self._element(data, at)
            if after < 0:
                return at
            if after > size:
                self._skip = after - size
                return size
            at = after
        self._need = 8
        if at > size:
            self._skip = at - size
            return size
        return at

    def _scan_short_elements(self, data: memoryview | bytes, at: int, last: int) -> int:
        """Scan top-level elements with a short length, the bulk of a header, in one tight loop."""
        head, wanted, highest = self._tag_short, self._wanted, self._highest
        while at <= last:
            group, element, vr, length = head(data, at)
            tag = group << 16 | element
            if vr not in _SHORT_VRS or tag > highest:
                break
            after = at + 8 + length
            if tag in wanted:
                if after > last + 8 or self._past_tags:
                    break
                self._raw[tag] = (vr.decode("latin-1"), bytes(data[at + 8 : after]))
            at = after
        return at

    def _element(self, data: memoryview | bytes, at: int) -> int:
        """Scan one element; return the offset of its end, or -1 if more bytes are needed."""
        if self._at_first_element:
            self._detect_explicit_vr(data, at)
        tag, vr, length, body = self._decode_element_header(data, at)
        if body > len(data):
            self._need = 12
            return -1
        if self._depth and tag == _ITEM_END:
            return self._end_item(body)
        if not self._depth:
            if tag > self._highest:
                self._pass_highest(data[at:], tag)
            if self._past_tags and tag in self._wanted:
                raise _out_of_order(tag)
        if length == _UNDEFINED:
            self._depth += 1
            self._item_due = True
            return body
        if tag in self._wanted and not self._depth and vr != b"SQ":
            return self._read_value(data, at, tag, vr, body, body + length)
        return body + length

    def _pass_highest(self, rest: memoryview | bytes, tag: int) -> None:
        """Note the first tag above the requested ones, the pixel data, or the first tag behind those."""
        self._past_tags = True
        has_pixels = tag >> 16 == _PIXELS
        if self.is_done:
            if not has_pixels:
                self._highest = SCAN_TO_END
                self._search_from(rest)
        elif self._search is None or has_pixels:
            self._finish()
            self._searches = False
            self._highest = -1 if self._search else SCAN_TO_END
        else:
            self._highest = (_PIXELS << 16) - 1

    def _search_from(self, rest: memoryview | bytes) -> None:
        """Have these bytes and all that follow searched for values ``ANYWHERE``."""
        if self._search is not None and not self._searches:
            self._searches = True
            self._search.feed(rest)

    def _decode_element_header(self, data: memoryview | bytes, at: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR, length and the value's offset (PS3.5 7.1); an absent VR is empty."""
        if not self._explicit:
            group, element, length = self._tag_long(data, at)
            return group << 16 | element, b"", length, at + 8
        group, element, vr, length = self._tag_short(data, at)
        if vr in _SHORT_VRS:
            return group << 16 | element, vr, length, at + 8
        if vr == b"??" or (vr == b"UN" and length):
            return group << 16 | element, b"UN", length, at + 8
        if vr in _LONG_VRS:
            long = self._long(data, at + 8)[0] if at + 12 <= len(data) else 0
            return group << 16 | element, vr, long, at + 12
        if b"AA" <= vr <= b"ZZ":
            return group << 16 | element, vr, length, at + 8
        return group << 16 | element, b"", self._long(data, at + 4)[0], at + 8

    def _detect_explicit_vr(self, data: memoryview | bytes, at: int) -> None:
        """Detect explicit VRs by the first element; within an implicit dataset, items are implicit, too."""
        self._at_first_element = False
        if not self._explicit and self._depth:
            return
        was = self._explicit
        vr = bytes(data[at + 4 : at + 6])
        self._explicit = vr == b"??" or (0x40 < vr[0] < 0x5B and 0x40 < vr[1] < 0x5B)
        if was and not self._explicit:
            self._implicit_depth = self._depth

    def _item(self, data: memoryview | bytes, at: int) -> int:
        length: int
        group, element, length = self._tag_long(data, at)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            self._depth -= 1
            self._item_due = False
        elif tag != _ITEM:
            if not self._past_tags:
                raise RemoteProtocolError("a sequence holds something that is not an item")
            self._search_from(data[at:])
            self._rest = IdentifierSearch(self._wanted, self._order)
            self._rest.feed(data[at:])
            return len(data)
        elif length == _UNDEFINED:
            self._item_due = False
            self._at_first_element = True
        else:
            return at + 8 + length
        return at + 8

    def _end_item(self, after: int) -> int:
        self._item_due = True
        if self._implicit_depth == self._depth:
            self._explicit = True
            self._implicit_depth = 0
        return after

    def _read_value(
        self, data: memoryview | bytes, at: int, tag: int, vr: bytes, body: int, after: int
    ) -> int:
        if after - body > _MAX_VALUE:
            raise RemoteProtocolError(
                f"the value of ({tag >> 16:04X},{tag & 0xFFFF:04X}) is {after - body} bytes long"
            )
        if after > len(data):
            self._need = after - at
            return -1
        self._raw[tag] = (vr.decode("latin-1"), bytes(data[body:after]))
        return after

    def _finish(self) -> None:
        self.is_done = True
        charset = self._raw.get(_CHARSET, ("", b""))[1]
        for tag, (vr, raw) in self._raw.items():
            if tag not in self._requested:
                continue
            if vr == "UI":  # most requested values are UIDs: spare them the call of decode_text
                uid = raw.decode("latin-1").strip(" \0")
                text = uid if "\\" not in uid else decode_text(tag, vr, raw, charset, self._order)
            else:
                text = decode_text(tag, vr, raw, charset, self._order)
            if text is not None:
                self.values[tag] = text
        if self._search is not None:
            self._add_searched_values(self._search)

    def _add_searched_values(self, search: IdentifierSearch) -> None:
        search.end()
        charset = self._raw.get(_CHARSET, ("", b""))[1]
        for tag, found in search.found.items():
            self.values[tag | ANYWHERE] = "\\".join(decode_anywhere(found, charset))


@lru_cache(maxsize=64)
def _sort_tags(tags: frozenset[int]) -> tuple[frozenset[int], frozenset[int], int, tuple[int, ...]]:
    """Return the tags at the top level, those with the character set, the highest, and those anywhere."""
    requested = frozenset(tag for tag in tags if tag < ANYWHERE)
    wanted = requested | {_CHARSET}
    return requested, wanted, max(wanted), tuple(tag - ANYWHERE for tag in tags - requested)


def scan_dataset(data: bytes | memoryview, transfer_syntax: str, tags: Iterable[int]) -> dict[int, str]:
    """Scan a whole small dataset, such as a C-FIND identifier. Raises RemoteProtocolError.

    Its elements may be in any order, unless it is damaged.
    """
    wanted = frozenset(tags)
    try:
        return _scan_bytes(data, transfer_syntax, wanted | {SCAN_TO_END})
    except RemoteProtocolError:
        return _scan_bytes(data, transfer_syntax, wanted)


def _scan_bytes(data: bytes | memoryview, transfer_syntax: str, tags: frozenset[int]) -> dict[int, str]:
    header = HeaderScan(transfer_syntax, tags)
    header.feed(data)
    header.end()
    return header.values


def _out_of_order(tag: int) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is behind a higher tag, where programs read it differently"
    )
