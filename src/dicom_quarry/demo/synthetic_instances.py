"""The dataset bytes of a synthetic instance, in pieces, made when they are sent and kept nowhere."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache

from dicom_quarry.demo import encoding
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.synthetic_studies import EXPLICIT_BIG, IMPLICIT_LITTLE, RLE_LOSSLESS, Instance, Kind

_PIXEL_DATA = 0x7FE00010
_RUN = 128  # the longest literal run of the RLE encoding, PS3.5 G.3.1
_RLE_HEADER = b"".join(n.to_bytes(4, "little") for n in (1, 64, *[0] * 14))  # one segment, at 64; PS3.5 G.5


def dataset(instance: Instance, syntax: str = "") -> Iterator[bytes | memoryview]:
    """The dataset of an instance in pieces, in its own transfer syntax unless told otherwise.

    A little endian instance may be asked for in the other little endian syntax; nothing else is converted.
    """
    kind = instance.series.kind
    syntax = syntax or kind.syntax
    explicit, little = syntax != IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    elements = _identity(instance) + (_image(kind) if kind.rows else _report())
    yield encoding.encode(elements, explicit=explicit, little=little)
    if not kind.rows:
        return
    if syntax == RLE_LOSSLESS:
        yield from _encapsulated(instance)
        return
    size = kind.rows * kind.columns * kind.frames * kind.bits // 8
    vr = "OW" if kind.bits > 8 or not explicit else "OB"
    order = "<" if little else ">"
    yield encoding.head(_PIXEL_DATA, vr, size, explicit=explicit, order=order)
    picture = memoryview(_picture(kind))
    for frame in range(kind.frames):
        yield from _scrolled(picture, kind, instance.number + frame)


def _identity(instance: Instance) -> list[Element]:
    study, series = instance.study, instance.series
    elements: list[Element] = [
        (0x00080016, "UI", instance.sop_class),
        (0x00080018, "UI", instance.sop_uid),
        (0x00080020, "DA", study.study_date),
        (0x00080030, "TM", study.study_time),
        (0x00080050, "SH", study.accession),
        (0x00080060, "CS", series.kind.modality),
        (0x00080070, "LO", "Quarry demo"),
        (0x00080090, "PN", ""),
        (0x00081030, "LO", study.description),
        (0x0008103E, "LO", series.description),
        (0x00100010, "PN", study.patient.name),
        (0x00100020, "LO", study.patient.patient_id),
        (0x00100030, "DA", study.patient.birth_date),
        (0x00100040, "CS", study.patient.sex),
        (0x0020000D, "UI", study.study_uid),
        (0x0020000E, "UI", series.series_uid),
        (0x00200010, "SH", study.accession),
        (0x00200011, "IS", str(series.number)),
        (0x00200013, "IS", str(instance.number)),
    ]
    if not study.patient.name.isascii():
        elements.append((0x00080005, "CS", "ISO_IR 192"))
    return elements


def _image(kind: Kind) -> list[Element]:
    elements: list[Element] = [
        (0x00080008, "CS", "ORIGINAL\\PRIMARY"),
        (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", kind.rows),
        (0x00280011, "US", kind.columns),
        (0x00280100, "US", kind.bits),
        (0x00280101, "US", kind.bits),
        (0x00280102, "US", kind.bits - 1),
        (0x00280103, "US", 0),
    ]
    if kind.frames > 1:
        elements += [(0x00280008, "IS", str(kind.frames)), (0x00181063, "DS", "40")]
        elements.append((0x00280009, "AT", (0x1063_0018).to_bytes(4, "little")))
    return elements


def _report() -> list[Element]:
    title: list[Element] = [
        (0x00080100, "SH", "18748-4"),
        (0x00080102, "SH", "LN"),
        (0x00080104, "LO", "Diagnostic imaging report"),
    ]
    finding: list[Element] = [
        (0x0040A010, "CS", "CONTAINS"),
        (0x0040A040, "CS", "TEXT"),
        (0x0040A043, "SQ", [title]),
        (0x0040A160, "UT", "Nothing to see: this patient does not exist."),
    ]
    return [
        (0x0040A040, "CS", "CONTAINER"),
        (0x0040A043, "SQ", [title]),
        (0x0040A050, "CS", "SEPARATE"),
        (0x0040A491, "CS", "COMPLETE"),
        (0x0040A493, "CS", "UNVERIFIED"),
        (0x0040A730, "SQ", [finding]),
    ]


@lru_cache(maxsize=8)
def _picture(kind: Kind) -> bytes:
    """One frame that looks like something: nested boxes, brightest in the middle."""
    top = (1 << min(kind.bits, 12)) - 1
    middle = min(kind.rows, kind.columns) // 2
    ramp = [min(x, kind.columns - 1 - x) for x in range(kind.columns)]
    values = array("H" if kind.bits > 8 else "B")
    for y in range(kind.rows):
        across = min(y, kind.rows - 1 - y)
        values.extend(min(x, across) * top // middle for x in ramp)
    if kind.syntax == EXPLICIT_BIG:
        values.byteswap()
    return values.tobytes()


def _scrolled(picture: memoryview, kind: Kind, lines: int) -> Iterator[memoryview]:
    """The frame scrolled by some lines, so that no two neighbours are equal; nothing is copied."""
    line = len(picture) // kind.rows
    cut = lines * 7 % kind.rows * line
    yield picture[cut:]
    yield picture[:cut]


def _encapsulated(instance: Instance) -> Iterator[bytes | memoryview]:
    """RLE: an empty offset table, then a fragment for each frame (PS3.5 A.4, annex G)."""
    kind = instance.series.kind
    coded = _run_lengths(kind)
    yield encoding.head(_PIXEL_DATA, "OB", encoding.UNDEFINED) + encoding.item(0)
    for frame in range(kind.frames):
        padding = len(coded) % 2
        yield encoding.item(len(_RLE_HEADER) + len(coded) + padding) + _RLE_HEADER
        yield from _scrolled(memoryview(coded), kind, instance.number + frame)
        yield bytes(padding)
    yield encoding.sequence_end()


@lru_cache(maxsize=8)
def _run_lengths(kind: Kind) -> bytes:
    """The 8-bit frame as literal runs; every line has the same length, so that lines can be rotated."""
    picture = _picture(kind)
    runs = (picture[start : start + _RUN] for start in range(0, len(picture), _RUN))
    return b"".join(bytes([_RUN - 1]) + run for run in runs)
