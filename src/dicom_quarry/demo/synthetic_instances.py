"""The dataset bytes of synthetic instances, made in pieces while they are sent."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache

from dicom_quarry.demo import encoding
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.synthetic_studies import (
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    RLE_LOSSLESS,
    DemoInstance,
    SeriesProfile,
)

_PIXEL_DATA = 0x7FE00010
_RLE_RUN_LENGTH = 128  # the longest literal run of the RLE encoding, PS3.5 G.3.1
_RLE_HEADER = b"".join(n.to_bytes(4, "little") for n in (1, 64, *[0] * 14))  # one segment, at 64; PS3.5 G.5


def encode_dataset(instance: DemoInstance, syntax: str = "") -> Iterator[bytes | memoryview]:
    """Encode the dataset of an instance in pieces, in ``syntax`` or its own transfer syntax.

    A little endian instance can be encoded in the other little endian syntax; there is no other conversion.
    """
    profile = instance.series.profile
    syntax = syntax or profile.syntax
    explicit, little = syntax != IMPLICIT_LITTLE, syntax != EXPLICIT_BIG
    elements = _header_elements(instance) + (_image_elements(profile) if profile.rows else _report_elements())
    yield encoding.encode(elements, explicit=explicit, little=little)
    if not profile.rows:
        return
    if syntax == RLE_LOSSLESS:
        yield from _encode_encapsulated(instance)
        return
    size = profile.rows * profile.columns * profile.frames * profile.bits // 8
    vr = "OW" if profile.bits > 8 or not explicit else "OB"
    order = "<" if little else ">"
    yield encoding.encode_header(_PIXEL_DATA, vr, size, explicit=explicit, order=order)
    frame_bytes = memoryview(_render_frame(profile))
    for frame in range(profile.frames):
        yield from _scroll_frame(frame_bytes, profile, instance.number + frame)


def _header_elements(instance: DemoInstance) -> list[Element]:
    study, series = instance.study, instance.series
    elements: list[Element] = [
        (0x00080016, "UI", instance.sop_class),
        (0x00080018, "UI", instance.sop_uid),
        (0x00080020, "DA", study.study_date),
        (0x00080030, "TM", study.study_time),
        (0x00080050, "SH", study.accession),
        (0x00080060, "CS", series.profile.modality),
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


def _image_elements(profile: SeriesProfile) -> list[Element]:
    elements: list[Element] = [
        (0x00080008, "CS", "ORIGINAL\\PRIMARY"),
        (0x00280002, "US", 1),
        (0x00280004, "CS", "MONOCHROME2"),
        (0x00280010, "US", profile.rows),
        (0x00280011, "US", profile.columns),
        (0x00280100, "US", profile.bits),
        (0x00280101, "US", profile.bits),
        (0x00280102, "US", profile.bits - 1),
        (0x00280103, "US", 0),
    ]
    if profile.frames > 1:
        elements += [(0x00280008, "IS", str(profile.frames)), (0x00181063, "DS", "40")]
        elements.append((0x00280009, "AT", (0x1063_0018).to_bytes(4, "little")))
    return elements


def _report_elements() -> list[Element]:
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
def _render_frame(profile: SeriesProfile) -> bytes:
    """Draw one frame: nested boxes, brightest in the middle."""
    top = (1 << min(profile.bits, 12)) - 1
    middle = min(profile.rows, profile.columns) // 2
    ramp = [min(x, profile.columns - 1 - x) for x in range(profile.columns)]
    values = array("H" if profile.bits > 8 else "B")
    for y in range(profile.rows):
        across = min(y, profile.rows - 1 - y)
        values.extend(min(x, across) * top // middle for x in ramp)
    if profile.syntax == EXPLICIT_BIG:
        values.byteswap()
    return values.tobytes()


def _scroll_frame(frame_bytes: memoryview, profile: SeriesProfile, lines: int) -> Iterator[memoryview]:
    """Scroll a frame by some lines without a copy, so that no two neighbours are equal."""
    line = len(frame_bytes) // profile.rows
    cut = lines * 7 % profile.rows * line
    yield frame_bytes[cut:]
    yield frame_bytes[:cut]


def _encode_encapsulated(instance: DemoInstance) -> Iterator[bytes | memoryview]:
    """Encode as RLE: an empty offset table, then a fragment for each frame (PS3.5 A.4, annex G)."""
    profile = instance.series.profile
    coded = _encode_rle_frame(profile)
    yield encoding.encode_header(_PIXEL_DATA, "OB", encoding.UNDEFINED) + encoding.encode_item_header(0)
    for frame in range(profile.frames):
        padding = len(coded) % 2
        yield encoding.encode_item_header(len(_RLE_HEADER) + len(coded) + padding) + _RLE_HEADER
        yield from _scroll_frame(memoryview(coded), profile, instance.number + frame)
        yield bytes(padding)
    yield encoding.encode_sequence_delimiter()


@lru_cache(maxsize=8)
def _encode_rle_frame(profile: SeriesProfile) -> bytes:
    """Encode an 8-bit frame as literal runs; all lines have the same length, so that lines can be rotated."""
    frame_bytes = _render_frame(profile)
    runs = (
        frame_bytes[start : start + _RLE_RUN_LENGTH] for start in range(0, len(frame_bytes), _RLE_RUN_LENGTH)
    )
    return b"".join(bytes([_RLE_RUN_LENGTH - 1]) + run for run in runs)
