"""The presentation contexts that a C-GET proposes for its sub-operations (PS3.4 C.4.3, PS3.8 9.3.2.2).

The acceptor takes one transfer syntax of a context, whatever the instances are in that it will have to send.
So every pair of SOP class and transfer syntax is a context of its own, as far as they go: then it need not
convert anything. Where there are more than 128, less common syntaxes share one, and the acceptor chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from pydicom.config import IGNORE
from pydicom.uid import UID

from dicom_quarry.wire.negotiation import MAX_CONTEXTS, is_storage

#: One context is C-GET's own.
MAX_STORAGE_CONTEXTS = MAX_CONTEXTS - 1

# All in the order of preference, which is roughly that of how common they are.
_UNCOMPRESSED = tuple(f"1.2.840.10008.1.2{end}" for end in (".1", "", ".1.99", ".2"))
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
#: Proposed where the archive does not list SOP classes: the common ones, and Siemens' for what is no image.
COMMON_SOP_CLASSES = frozenset(
    (
        *(_STORAGE_CLASS_PREFIX + end for end in f"{_IMAGE_CLASSES} {_OTHER_CLASSES}".split()),
        "1.3.12.2.1107.5.9.1",
    ),
)


def select_sop_classes(sop_classes: Iterable[str]) -> frozenset[str]:
    """What may be proposed of the classes that an archive lists; where it names not all, common ones too."""
    listed = frozenset(sop_classes)
    known = frozenset(uid for uid in listed if uid and is_storage(uid))
    return known if known and "" not in listed else known | COMMON_SOP_CLASSES


def fits_one_association(sop_classes: Iterable[str]) -> bool:
    """Whether there is room for every pair of class and transfer syntax."""
    return sum(len(_transfer_syntaxes(uid)) for uid in sop_classes) <= MAX_STORAGE_CONTEXTS


def build_contexts(sop_classes: Iterable[str]) -> list[tuple[str, Sequence[str]]]:
    """Contexts to propose for these classes, never more than there is room for."""
    wanted = {
        uid: _transfer_syntaxes(uid) for uid in sorted(sop_classes, key=_sort_key)[:MAX_STORAGE_CONTEXTS]
    }
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


def group_series(series: Mapping[str, frozenset[str]]) -> list[dict[str, frozenset[str]]]:
    """Series, with their classes, in groups for each of which there is room; one that has none is alone."""
    groups: list[dict[str, frozenset[str]]] = []
    for uid, sop_classes in sorted(series.items(), key=lambda item: sorted(item[1])):
        if groups and fits_one_association(sop_classes.union(*groups[-1].values())):
            groups[-1][uid] = sop_classes
        else:
            groups.append({uid: sop_classes})
    return groups


def _distribute_syntaxes(syntaxes: tuple[str, ...], share: int) -> list[tuple[str, ...]]:
    """Syntaxes in so many contexts, as many as possible alone; the uncompressed keep to themselves."""
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
    """The transfer syntaxes in which instances of a class may be."""
    # A validation would warn, with the archive's words.
    name = UID(sop_class, validation_mode=IGNORE).name
    if name == sop_class or any(word in name for word in _VIDEO_CLASS_WORDS):
        return _UNCOMPRESSED + _STILL_IMAGE + _VIDEO
    return _UNCOMPRESSED + _STILL_IMAGE if any(word in name for word in _PIXEL_CLASS_WORDS) else _UNCOMPRESSED
