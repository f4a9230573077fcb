"""Identifiers anywhere in a dataset, in sequences of every encoding; the dataset's own identity stays."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from struct import pack

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.header_scan import ANYWHERE, SCAN_TO_END, HeaderScan

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{rest}" for rest in ("", ".1", ".2", ".1.99"))
PATIENT_ID, OTHER_IDS, ACCESSION, SOP, STUDY = 0x00100020, 0x00101000, 0x00080050, 0x00080018, 0x0020000D
OWN = frozenset({PATIENT_ID, ACCESSION, SOP, STUDY})
SEARCHED = frozenset({PATIENT_ID | ANYWHERE, OTHER_IDS | ANYWHERE, ACCESSION | ANYWHERE})


def item(**values: object) -> Dataset:
    one = Dataset()
    for keyword, value in values.items():
        setattr(one, keyword, value)
    return one


def other_patient_ids() -> Dataset:
    return item(OtherPatientIDsSequence=Sequence([item(PatientID="X1"), item(PatientID="HIDDEN")]))


def request_attributes() -> Dataset:
    return item(RequestAttributesSequence=Sequence([item(AccessionNumber="HIDDEN")]))


def referenced_request() -> Dataset:
    return item(ReferencedRequestSequence=Sequence([item(AccessionNumber="HIDDEN", StudyInstanceUID="1.9")]))


def original_attributes() -> Dataset:
    modified = item(PatientID="HIDDEN", StudyInstanceUID="1.9")
    return item(OriginalAttributesSequence=Sequence([item(ModifiedAttributesSequence=Sequence([modified]))]))


def deep() -> Dataset:
    one = item(PatientID="HIDDEN")
    for _ in range(40):
        one = item(ReferencedStudySequence=Sequence([one]))
    return one


def private() -> Dataset:
    one = Dataset()
    block = one.private_block(0x0029, "SITE", create=True)
    block.add_new(0x10, "SQ", Sequence([item(OtherPatientIDs="7\\HIDDEN")]))
    return one


def behind_an_icon() -> Dataset:
    icon = item(Rows=1, Columns=1, BitsAllocated=8, SamplesPerPixel=1, PixelData=b"\0\0")
    icon["PixelData"].VR = "OB"
    one = original_attributes()
    one.IconImageSequence = Sequence([icon])
    return one


SHAPES = [other_patient_ids, request_attributes, referenced_request, original_attributes, deep, private]
SHAPES.append(behind_an_icon)


def encode(hidden: Dataset, syntax: str, *, undefined: bool) -> bytes:
    dataset = item(SOPInstanceUID="1.2.3", AccessionNumber="OWN-A", PatientID="OWN", StudyInstanceUID="1.2")
    dataset.update(hidden)
    dataset.add_new(0x00420011, "OB", bytes(20_000))
    dataset.Rows = 3
    dataset.add_new(0x7FE00010, "OW", bytes(4000))
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for one in element.value:
                one.is_undefined_length_sequence_item = undefined
    stream = io.BytesIO()
    pydicom.dcmwrite(
        stream,
        dataset,
        implicit_vr=syntax == IMPLICIT,
        little_endian=syntax != BIG,
        enforce_file_format=False,
    )
    plain = stream.getvalue()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return plain if syntax != DEFLATED else deflate.compress(plain) + deflate.flush()


def scan(data: bytes, syntax: str, step: int = 1 << 16, tags: frozenset[int] = OWN | SEARCHED) -> HeaderScan:
    header = HeaderScan(syntax, tags)
    for at in range(0, len(data), step):
        header.feed(memoryview(data)[at : at + step])
    header.end()
    return header


def found(header: HeaderScan) -> set[str]:
    return {value for tag in SEARCHED for value in header.values[tag].split("\\")}


@pytest.mark.parametrize("undefined", [True, False], ids=["undefined", "defined"])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("shape", SHAPES)
def test_found_in_every_sequence(shape: Callable[[], Dataset], syntax: str, undefined: bool) -> None:
    data = encode(shape(), syntax, undefined=undefined)
    for step in (1, 7, 4096, len(data)):
        header = scan(data, syntax, step)
        assert "HIDDEN" in found(header)
        own = {tag: value for tag, value in header.values.items() if tag < ANYWHERE}
        assert own == scan(data, syntax, tags=OWN).values
        assert own == {PATIENT_ID: "OWN", ACCESSION: "OWN-A", SOP: "1.2.3", STUDY: "1.2"}


def test_it_ends_before_the_pixel_data() -> None:
    data = encode(Dataset(), EXPLICIT, undefined=False)
    header = HeaderScan(EXPLICIT, OWN | SEARCHED)
    assert header.feed(data[: data.index(b"\xe0\x7f\x10\x00") + 12])


def test_without_a_search_it_ends_where_it_did() -> None:
    data = encode(original_attributes(), EXPLICIT, undefined=False)
    assert HeaderScan(EXPLICIT, OWN).feed(data[:200])


def test_a_sequence_of_unknown_vr_is_searched() -> None:
    inner = pack("<HHL", 0x0010, 0x0020, 6) + b"HIDDEN"
    body = pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
    own = encode(Dataset(), EXPLICIT, undefined=False)
    at = own.index(b"\x20\x00\x0d\x00")
    data = own[:at] + pack("<HH2sHL", 0x0010, 0x1002, b"UN", 0, len(body)) + body + own[at:]
    assert "HIDDEN" in found(scan(data, EXPLICIT))


#: An end of an item without an item, and a sequence in which something else is.
DAMAGE = (b"\xfe\xff\x0d\xe0\0\0\0\0", b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff12345678")


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_above_the_identity_is_searched_to_the_end(damage: bytes) -> None:
    """Such an instance is stored without a list, so a list must not lose it."""
    data = encode(
        item(RequestAttributesSequence=[item(OtherPatientIDs="HIDDEN", PatientID="OWN")]),
        EXPLICIT,
        undefined=True,
    )
    at = data.index(b"\x28\x00\x10\x00")
    for step in (5, 1 << 16):
        header = scan(data[:at] + damage + data[at:], EXPLICIT, step)
        assert header.values[PATIENT_ID] == "OWN"
        assert "HIDDEN" in found(header)
    cut = data.index(b"\x42\x00\x11\x00") + 100
    assert scan(data[:cut], EXPLICIT).values[PATIENT_ID] == "OWN"


def test_another_identity_behind_damage_refuses_the_dataset() -> None:
    data = encode(original_attributes(), EXPLICIT, undefined=True)
    at = data.index(b"\x28\x00\x10\x00")
    for tags in (OWN, OWN | SEARCHED):
        with pytest.raises(RemoteProtocolError, match=r"0010,0020\) is behind a higher tag"):
            scan(data[:at] + DAMAGE[1] + data[at:], EXPLICIT, tags=tags)


@pytest.mark.parametrize("place", [0x00280010, 0x7FE00010])
@pytest.mark.parametrize("step", [5, 1 << 16])
def test_identifiers_behind_the_pixel_data_are_found(place: int, step: int) -> None:
    """Some of them are known late only: the instance is admitted once more before it gets its name."""
    data = encode(Dataset(), EXPLICIT, undefined=False)
    at = data.index(pack("<HH", place >> 16, place & 0xFFFF)) if place != 0x7FE00010 else len(data)
    hidden = pack("<HH2sH", 0x0010, 0x1000, b"LO", 6) + b"HIDDEN"
    header = scan(data[:at] + hidden + data[at:], EXPLICIT, step)
    assert "HIDDEN" in found(header)
    assert header.has_late_values is (place == 0x7FE00010 and step == 5)
    assert not scan(data, EXPLICIT, step).has_late_values


def test_a_scan_to_the_end_is_as_strict_as_before() -> None:
    data = encode(original_attributes(), EXPLICIT, undefined=True)
    with pytest.raises(RemoteProtocolError):
        scan(data[:-1], EXPLICIT, tags=OWN | SEARCHED | {SCAN_TO_END})


def test_a_flood_of_identifiers_is_refused() -> None:
    items = [item(PatientID=f"{n}") for n in range(10_001)]
    data = encode(item(OtherPatientIDsSequence=Sequence(items)), EXPLICIT, undefined=False)
    with pytest.raises(RemoteProtocolError, match="more than 10000 different values"):
        scan(data, EXPLICIT)


def test_other_character_sets() -> None:
    name = "\N{LATIN CAPITAL LETTER A WITH DIAERESIS}1"
    one = other_patient_ids()
    one.OtherPatientIDsSequence[1].PatientID = name
    one.SpecificCharacterSet = "ISO_IR 192"
    assert name in found(scan(encode(one, EXPLICIT, undefined=False), EXPLICIT))
    one.SpecificCharacterSet = "ISO_IR 100"
    assert name in found(scan(encode(one, EXPLICIT, undefined=True), EXPLICIT))
