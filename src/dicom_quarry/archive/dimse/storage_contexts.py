"""The presentation contexts that a C-GET association proposes for its sub-operations (PS3.8 9.3.2.2).

An association has at most 128 presentation contexts, which is too few for every pair of storage SOP class and
transfer syntax.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dicom_quarry.wire.data_dictionary import name_of_uid
from dicom_quarry.wire.negotiation import MAX_CONTEXTS, is_storage

#: One presentation context is that of C-GET itself.
MAX_STORAGE_CONTEXTS = MAX_CONTEXTS - 1

# Transfer syntaxes in order of preference, which is roughly their frequency.
_UNCOMPRESSED = tuple(f"1.2.840.10008.1.2{end}" for end in (".1", "", ".2"))
# Some archives deflate everything for a requestor that offers it, so only repeated requests do.
_DEFLATED = ("1.2.840.10008.1.2.1.99",)
_STILL_IMAGE = (
    *(f"1.2.840.10008.1.2.4.{number}" for number in (70, 90, 50, 91, 80, 51, 57, 81)),
    "1.2.840.10008.1.2.5",
    *(f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203, 92, 93)),
)
_VIDEO = tuple(
    f"1.2.840.10008.1.2.4.{number}"
    for number in (102, 100, 103, 101, 104, 107, 105, 106, 108, "102.1", "100.1", "103.1", "101.1")
)

# Words in the names of classes whose pixels may be compressed, and of those that may hold a video.
_PIXEL_CLASS_WORDS = ("Image", "Volume", "Segmentation", "Map", "RT Dose")
_VIDEO_CLASS_WORDS = ("Multi-frame", "Video")

_STORAGE_CLASS_PREFIX = "1.2.840.10008.5.1.4.1.1."
_IMAGE_CLASSES = (
    "2 4 128 7 1 1.1 1.2 6.1 3.1 12.1 12.2 20 1.1.1 1.2.1 1.3 2.1 4.1 4.3 130 13.1.3 13.1.1 13.1.2 "
    "7.1 7.2 7.3 7.4 6.2 12.1.1 12.2.1 77.1.1 77.1.2 77.1.3 77.1.4 77.1.5.1 77.1.5.2 77.1.5.4 77.1.6 "
    "77.1.1.1 77.1.2.1 77.1.4.1 481.1 481.2 66.4 30 6 3 5"
)
_OTHER_CLASSES = (
    "88.11 88.22 88.33 88.34 88.50 88.59 88.65 88.67 88.68 11.1 11.2 11.3 11.4 104.1 104.2 "
    "481.3 481.4 481.5 481.6 481.7 481.8 481.9 66 66.1 66.2 66.3 66.5 67 4.2 "
    "9.1.1 9.1.2 9.1.3 9.2.1 9.3.1"
)
#: Proposed if the archive does not list SOP classes: the common ones, and Siemens' CSA Non-Image Storage.
COMMON_SOP_CLASSES = frozenset(
    (
        *(_STORAGE_CLASS_PREFIX + end for end in f"{_IMAGE_CLASSES} {_OTHER_CLASSES}".split()),
        "1.3.12.2.1107.5.9.1",
    ),
)


#: The classes of a modality, by the end of their UIDs, and those that any modality may have.
_CLASSES_BY_MODALITY = {
    "CT": "2 2.1 2.2",
    "MR": "4 4.1 4.2 4.3",
    "PT": "128 130 128.1 20",
    "NM": "20",
    "US": "6.1 3.1",
    "CR": "1 1.1",
    "DX": "1.1 1",
    "MG": "1.2 1.2.1 13.1.3",
    "IO": "1.3 1.3.1 1.1",
    "PX": "1.1 1",
    "XA": "12.1 12.1.1 13.1.1",
    "RF": "12.2 12.2.1",
    "ES": "77.1.1 77.1.1.1",
    "GM": "77.1.2 77.1.2.1",
    "SM": "77.1.6 77.1.3",
    "XC": "77.1.4 77.1.4.1",
    "OP": "77.1.5.1 77.1.5.2",
    "OPT": "77.1.5.4",
    "SEG": "66.4 66.5",
    "REG": "66.1 66.3",
    "RTIMAGE": "481.1",
    "RTDOSE": "481.2",
    "RTSTRUCT": "481.3",
    "RTPLAN": "481.5 481.8",
    "RTRECORD": "481.4 481.6 481.7 481.9",
    "SR": "88.11 88.22 88.33 88.34 88.50 88.65 88.67 88.68",
    "KO": "88.59",
    "PR": "11.1 11.2 11.3 11.4",
    "ECG": "9.1.1 9.1.2 9.1.3",
    "OT": "7.2 7.3 7.4 104.1",
    "DOC": "104.1 104.2",
}
_CLASSES_OF_ANY_MODALITY = "7 66"


@dataclass(frozen=True, slots=True)
class StorageProposal:
    """The storage SOP classes to propose; ``is_repeat`` for what did not come when it was first requested."""

    sop_classes: frozenset[str] = frozenset()
    is_repeat: bool = False

    @property
    def fits_one_association(self) -> bool:
        """True if one association has a context for every pair of class and transfer syntax."""
        return sum(len(self._syntaxes(uid)) for uid in self.sop_classes) <= MAX_STORAGE_CONTEXTS

    def join(self, other: StorageProposal) -> StorageProposal:
        """Return a proposal of the classes of both."""
        return StorageProposal(self.sop_classes | other.sop_classes, self.is_repeat or other.is_repeat)

    def includes(self, other: StorageProposal) -> bool:
        """Return True if an association with the contexts of this proposal serves the other one, too.

        Where transfer syntaxes share contexts, it serves only the very classes that it was opened for.
        """
        return self == other or (
            self.is_repeat == other.is_repeat
            and other.sop_classes < self.sop_classes
            and self.fits_one_association
        )

    def contexts(self) -> list[tuple[str, Sequence[str]]]:
        """Return the contexts to propose, at most MAX_STORAGE_CONTEXTS.

        If there are not enough for every pair of class and transfer syntax, several syntaxes share a context;
        the archive then chooses one of them (PS3.8 9.3.3.2).
        """
        chosen = sorted(self.sop_classes, key=_sort_key)[:MAX_STORAGE_CONTEXTS]
        wanted = {uid: self._syntaxes(uid) for uid in chosen}
        shares = dict.fromkeys(wanted, 1)
        left = MAX_STORAGE_CONTEXTS - len(wanted)
        while left:
            short = [uid for uid, syntaxes in wanted.items() if shares[uid] < len(syntaxes)][:left]
            if not short:
                break
            shares.update((uid, shares[uid] + 1) for uid in short)
            left -= len(short)
        return [
            (uid, part)
            for uid, syntaxes in wanted.items()
            for part in _distribute_syntaxes(syntaxes, shares[uid])
        ]

    def _syntaxes(self, sop_class: str) -> tuple[str, ...]:
        return _transfer_syntaxes(sop_class) + _DEFLATED * self.is_repeat


def select_sop_classes(sop_classes: Iterable[str], modality: str = "") -> frozenset[str]:
    """Return the storage classes to propose for listed ones.

    An empty UID, of an instance that is listed without its class, adds the classes of the modality, or the
    common ones where that is unknown.
    """
    listed = frozenset(sop_classes)
    known = frozenset(uid for uid in listed if uid and is_storage(uid))
    return known if known and "" not in listed else known | _classes_of(modality)


def _classes_of(modality: str) -> frozenset[str]:
    ends = _CLASSES_BY_MODALITY.get(modality)
    if ends is None:
        return COMMON_SOP_CLASSES
    return frozenset(_STORAGE_CLASS_PREFIX + end for end in f"{ends} {_CLASSES_OF_ANY_MODALITY}".split())


def group_series(series: Mapping[str, StorageProposal]) -> list[tuple[list[str], StorageProposal]]:
    """Group series so that the joined proposals of each group fit one association; one too large is alone."""
    groups: list[tuple[list[str], StorageProposal]] = []
    for uid, proposal in sorted(series.items(), key=lambda item: sorted(item[1].sop_classes)):
        if groups and (joined := groups[-1][1].join(proposal)).fits_one_association:
            groups[-1] = ([*groups[-1][0], uid], joined)
        else:
            groups.append(([uid], proposal))
    return groups


def _distribute_syntaxes(syntaxes: tuple[str, ...], share: int) -> list[tuple[str, ...]]:
    """Distribute syntaxes over ``share`` contexts, most of them with one syntax.

    Uncompressed and compressed syntaxes share no context, unless there is only one.
    """
    plain, compressed = syntaxes[: len(_UNCOMPRESSED)], syntaxes[len(_UNCOMPRESSED) :]
    if share == 1 or not compressed:
        return _partition(syntaxes, share)
    of_plain = max(1, share - len(compressed))
    return _partition(plain, of_plain) + _partition(compressed, share - of_plain)


def _partition(syntaxes: tuple[str, ...], parts: int) -> list[tuple[str, ...]]:
    return [*((one,) for one in syntaxes[: parts - 1]), syntaxes[parts - 1 :]]


def _sort_key(uid: str) -> tuple[bool, str]:
    return len(_transfer_syntaxes(uid)) == len(_UNCOMPRESSED), uid


@lru_cache(maxsize=256)
def _transfer_syntaxes(sop_class: str) -> tuple[str, ...]:
    """Return the transfer syntaxes to propose for a SOP class."""
    name = name_of_uid(sop_class)
    if name == sop_class or any(word in name for word in _VIDEO_CLASS_WORDS):
        return _UNCOMPRESSED + _STILL_IMAGE + _VIDEO
    return _UNCOMPRESSED + _STILL_IMAGE if any(word in name for word in _PIXEL_CLASS_WORDS) else _UNCOMPRESSED
