"""The streaming scan compared with pydicom on its own test files, whole, cut, damaged and in pieces."""

from __future__ import annotations

import re
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from struct import pack

import pydicom.data
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom.errors import InvalidDicomError
from pydicom.filereader import _read_file_meta_info as read_meta
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.charsets import readings
from dicom_quarry.wire.header_scan import SCAN_TO_END, HeaderScan, scan_dataset

IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{rest}" for rest in ("", ".1", ".2", ".1.99"))
TAGS = frozenset(
    {
        0x00080008,  # ImageType, several values
        0x00080016,
        0x00080018,
        0x00080020,
        0x00080050,
        0x00080060,
        0x00100010,  # PatientName, all character sets
        0x00100020,
        0x0020000D,
        0x0020000E,
        0x00280010,  # Rows, a number
    }
)


@dataclass(frozen=True)
class Sample:
    name: str
    transfer_syntax: str
    dataset: bytes


@cache
def samples() -> tuple[Sample, ...]:
    folder = Path(pydicom.data.__file__).parent
    found = [sample for path in sorted(folder.rglob("*")) if path.is_file() and (sample := read_sample(path))]
    assert len(found) > 100
    return tuple(found)


def read_sample(path: Path) -> Sample | None:
    with path.open("rb") as file:
        try:
            read_preamble(file, force=False)
        except InvalidDicomError:
            return None
        meta = read_meta(file)
        return Sample(path.name, str(meta.get("TransferSyntaxUID", EXPLICIT)), file.read())


def pydicom_values(transfer_syntax: str, data: bytes, tags: frozenset[int] = TAGS) -> dict[int, str]:
    if transfer_syntax == DEFLATED:
        data = zlib.decompress(data, -zlib.MAX_WBITS)
    highest = max(tags)
    dataset = read_dataset(
        BytesIO(data),
        transfer_syntax == IMPLICIT,
        transfer_syntax != BIG,
        stop_when=lambda tag, _vr, _length: tag > highest,
        specific_tags=list(tags),
    )
    values = {}
    for tag in tags & {int(element.tag) for element in dataset.values()}:
        if dataset[tag].VR != "SQ":
            values[tag] = as_text(dataset[tag].value)
    return values


def comparable(values: dict[int, str]) -> dict[int, str]:
    """pydicom drops the empty groups at the end of a name, and all that Python calls space around a UID."""
    return {
        tag: text.rstrip("=") if tag == 0x00100010 else "\\".join(one.strip() for one in text.split("\\"))
        for tag, text in values.items()
    }


def as_text(value: object) -> str:
    if isinstance(value, MultiValue | list):
        return "\\".join(as_text(one) for one in value)
    return "" if value is None else str(value).strip(" \0")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_values_are_pydicoms(sample: Sample) -> None:
    expected = pydicom_values(sample.transfer_syntax, sample.dataset)
    assert comparable(scan_dataset(sample.dataset, sample.transfer_syntax, TAGS)) == expected


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_a_whole_dataset_is_known_as_whole_and_a_cut_one_is_not(sample: Sample) -> None:
    if "truncated" in sample.name:
        with pytest.raises(RemoteProtocolError, match="ends within"):
            scan_dataset(sample.dataset, sample.transfer_syntax, TAGS | {SCAN_TO_END})
        return
    values = scan_dataset(sample.dataset, sample.transfer_syntax, TAGS | {SCAN_TO_END})
    assert values == scan_dataset(sample.dataset, sample.transfer_syntax, TAGS)
    cut = -10 if sample.transfer_syntax == DEFLATED else -1  # there is padding after the deflated stream
    with pytest.raises(RemoteProtocolError, match="ends within"):
        scan_dataset(sample.dataset[:cut], sample.transfer_syntax, TAGS | {SCAN_TO_END})


def small_samples() -> list[Sample]:
    return [sample for sample in samples() if len(sample.dataset) < 50_000]


@st.composite
def damaged(draw: st.DrawFn) -> Sample:
    """A sample with a few bytes of its header changed, or cut."""
    sample = draw(st.sampled_from(small_samples()))
    data = bytearray(sample.dataset)
    if sample.transfer_syntax == DEFLATED:
        data = bytearray(zlib.decompress(data, -zlib.MAX_WBITS))
    reach = min(len(data), 1500)
    changes = draw(st.lists(st.tuples(st.integers(0, reach - 1), st.integers(0, 255)), max_size=4))
    for place, byte in changes:
        data[place] = byte
    if draw(st.booleans()):
        del data[draw(st.integers(0, reach)) :]
    transfer_syntax = EXPLICIT if sample.transfer_syntax == DEFLATED else sample.transfer_syntax
    return Sample(sample.name, transfer_syntax, bytes(data))


#: What the scan refuses although pydicom makes something of it; see the module's docstring.
STRICTER = re.compile("ends within an element|not an item|bytes long|behind a higher tag")

#: VRs after which the scan reads a length of 16 bits, and pydicom does not.
SHORT_UNKNOWN = re.compile(rb"\?\?|UN(?!\0\0)", re.DOTALL)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_of_damaged_datasets_both_read_the_same_or_both_refuse(sample: Sample) -> None:
    header = HeaderScan(sample.transfer_syntax, TAGS)
    try:
        header.feed(sample.dataset)
        header.end()
        values = comparable(header.values)
    except RemoteProtocolError as error:
        assert STRICTER.search(str(error))
        return
    try:
        expected = comparable(pydicom_values(sample.transfer_syntax, sample.dataset))
    except Exception:  # noqa: BLE001 - pydicom fails in many ways; what it cannot read need not agree
        return
    assume("\ufffd" not in "".join(expected.values()))
    assume(not SHORT_UNKNOWN.search(sample.dataset[:1500]))
    # Without a usable character set pydicom reads Latin-1, and Quarry UTF-8 where it is that.
    assert values.keys() == expected.keys()
    assert all(values[tag] in readings(expected[tag]) for tag in values)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_split_into_feeds_gives_the_same(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(small_samples()))
    size = len(sample.dataset)
    near = st.integers(0, min(size, 3000))
    cuts = sorted(data.draw(st.lists(near | st.integers(0, size), max_size=30)))
    header = HeaderScan(sample.transfer_syntax, TAGS)
    for begin, end in zip([0, *cuts], [*cuts, size], strict=True):
        header.feed(memoryview(sample.dataset)[begin:end])
    header.end()
    assert header.values == scan_dataset(sample.dataset, sample.transfer_syntax, TAGS)


@pytest.mark.parametrize("sample", small_samples()[::4], ids=lambda sample: sample.name)
def test_one_byte_at_a_time(sample: Sample) -> None:
    header = HeaderScan(sample.transfer_syntax, TAGS)
    done = [header.feed(sample.dataset[at : at + 1]) for at in range(len(sample.dataset))]
    header.end()
    assert header.values == scan_dataset(sample.dataset, sample.transfer_syntax, TAGS)
    assert done == sorted(done)


def element(tag: int, vr: str, value: bytes, order: str = "<") -> bytes:
    """An explicit element; VRs of four-byte lengths by the usual table."""
    head = pack(order + "HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + pack(order + "HL", 0, len(value)) + value
    return head + pack(order + "H", len(value)) + value


def undefined(tag: int, vr: str, content: bytes) -> bytes:
    end = bytes.fromhex("feffdde000000000")
    return pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, 0xFFFFFFFF) + content + end


ITEM = bytes.fromhex("feff00e0ffffffff")
ITEM_END = bytes.fromhex("feff0de000000000")
UID_ELEMENT = element(0x00080018, "UI", b"1.2.3\0")
ID_ELEMENT = element(0x00100020, "LO", b"4711")


def test_sequences_a_hundred_thousand_deep() -> None:
    deep = 100_000
    opening = (undefined(0x00081140, "SQ", b"")[:-8] + ITEM) * deep
    closing = (ITEM_END + bytes.fromhex("feffdde000000000")) * deep
    hidden = element(0x00100020, "LO", b"hidden")
    data = UID_ELEMENT + opening + hidden + closing + ID_ELEMENT
    assert scan_dataset(data, EXPLICIT, TAGS) == {0x00080018: "1.2.3", 0x00100020: "4711"}


def test_an_item_may_be_implicit_in_an_explicit_dataset() -> None:
    """PS3.5 6.2.2: a UN of undefined length holds implicit items."""
    implicit_item = ITEM + pack("<HHL", 0x0010, 0x0020, 4) + b"ABCD" + ITEM_END
    explicit_item = ITEM + ID_ELEMENT + ITEM_END
    data = undefined(0x00091010, "UN", implicit_item + explicit_item + ITEM + ITEM_END) + ID_ELEMENT
    assert scan_dataset(data, EXPLICIT, TAGS) == {0x00100020: "4711"}


def test_values_of_gigabytes_are_counted_not_kept() -> None:
    header = HeaderScan(EXPLICIT, TAGS)
    piece = memoryview(bytes(1 << 20))
    header.feed(UID_ELEMENT + pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 3 << 30))
    tracemalloc.start()
    for _ in range(3 << 10):
        assert not header.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    header.feed(ID_ELEMENT)
    header.end()
    assert header.values == {0x00080018: "1.2.3", 0x00100020: "4711"}
    assert peak < 1 << 20


def test_a_wanted_value_beyond_measure_is_refused_before_it_is_kept() -> None:
    header = HeaderScan(EXPLICIT, {0x00104000})
    with pytest.raises(RemoteProtocolError, match="bytes long"):
        header.feed(pack("<HH2sHL", 0x0010, 0x4000, b"UT", 0, 1 << 30))


def test_a_deflate_bomb_is_refused_in_little_memory() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 1 << 31))
    bomb += b"".join(deflate.compress(bytes(1 << 20)) for _ in range(300)) + deflate.flush()
    header = HeaderScan(DEFLATED, TAGS)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="bytes before its identifiers"):
        header.feed(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("data", [b"not deflated at all", b"", b"\x00"])
def test_a_broken_deflated_dataset_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        scan_dataset(data, DEFLATED, TAGS)


def test_deflated_data_may_have_a_zlib_header() -> None:
    data = UID_ELEMENT + ID_ELEMENT
    header = HeaderScan(DEFLATED, TAGS)
    for byte in zlib.compress(data):
        header.feed(bytes([byte]))
    header.end()
    assert header.values == {0x00080018: "1.2.3", 0x00100020: "4711"}


@pytest.mark.parametrize("vr", ["??", "UN"])
@pytest.mark.parametrize("tag", [0x00080005 + 1, 0x00091001, 0x00100020])
def test_an_unknown_vr_may_have_a_length_of_16_bits(vr: str, tag: int) -> None:
    odd = pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), 6) + b"4711\0\0"
    study = element(0x0020000D, "UI", b"1.2.9\0")
    expected = {0x0020000D: "1.2.9", **({tag: "4711"} if tag in TAGS else {})}
    header = HeaderScan(EXPLICIT, TAGS)
    for byte in odd + study:
        header.feed(bytes([byte]))
    header.end()
    assert header.values == expected
    assert scan_dataset(UID_ELEMENT + odd + study, EXPLICIT, TAGS) == {0x00080018: "1.2.3", **expected}


def test_elements_out_of_order_and_repeated() -> None:
    late = element(0x00080050, "SH", b"LATE")
    data = UID_ELEMENT + element(0x00080020, "DA", b"20200101") + ID_ELEMENT + late
    data += element(0x00080018, "UI", b"1.2.4\0")
    expected = pydicom_values(EXPLICIT, data)
    assert scan_dataset(data, EXPLICIT, TAGS) == expected
    assert expected[0x00080018] == "1.2.4"


def test_garbage_behind_the_highest_tag_is_not_refused() -> None:
    header = HeaderScan(EXPLICIT, {0x00080018})
    assert header.feed(UID_ELEMENT + ID_ELEMENT + b"garbage")
    assert header.feed(b"more")
    header.end()
    assert header.values == {0x00080018: "1.2.3"}


#: Elements above all of TAGS: a number, and a value in which nothing but items may be.
ABOVE = element(0x00280100, "US", pack("<H", 8))
NO_ITEMS = undefined(0x7FE00010, "OB", b"no items")


@pytest.mark.parametrize("tag", [0x00080005, 0x00080018, 0x0020000D, 0x00100020, 0x00100010])
@pytest.mark.parametrize("before", [ABOVE, NO_ITEMS, ABOVE + NO_ITEMS, element(0x7FE00010, "OW", bytes(99))])
@pytest.mark.parametrize("step", [1, 9, 1000])
def test_a_requested_tag_behind_a_higher_one_refuses_the_dataset(tag: int, before: bytes, step: int) -> None:
    data = (
        UID_ELEMENT + ID_ELEMENT + before + element(tag, "LO", b"1.2.66") + element(0xFFFCFFFC, "OB", b"00")
    )
    header = HeaderScan(EXPLICIT, TAGS)
    with pytest.raises(RemoteProtocolError, match=f"{tag & 0xFFFF:04X}\\) is behind a higher tag"):
        for at in range(0, len(data), step):
            header.feed(memoryview(data)[at : at + step])
        header.end()
    assert header.is_done
    if NO_ITEMS not in before:  # a small dataset that is whole is read to its end
        assert scan_dataset(data, EXPLICIT, TAGS | {0x00080005})[tag] == "1.2.66"


@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
def test_a_nested_tag_behind_the_highest_is_no_tag_of_the_dataset(syntax: str) -> None:
    nested = undefined(0x00400275, "SQ", ITEM + ID_ELEMENT + UID_ELEMENT + ITEM_END)
    data = UID_ELEMENT + ID_ELEMENT + ABOVE + nested + element(0x7FE00010, "OW", ID_ELEMENT)
    header = HeaderScan(syntax, TAGS)
    assert header.feed(zlib.compress(data) if syntax == DEFLATED else data)
    header.end()


def test_group_2_in_the_dataset_is_passed_over() -> None:
    assert scan_dataset(element(0x00020010, "UI", b"1.2\0") + ID_ELEMENT, EXPLICIT, TAGS) == {
        0x00100020: "4711"
    }


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"", "Müller".encode("latin-1"), "Müller"),  # undeclared
        (b"ISO_IR 192", "Müller ".encode(), "Müller"),
        (b"ISO_IR 192", "Müller".encode("latin-1"), "Müller"),  # declared wrongly
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"GB18030 ", "王小東".encode("gb18030"), "王小東"),
        (b"\\ISO 2022 IR 87", "山田".encode("iso2022_jp"), "山田"),
        (b"UTF-8", "Müller".encode(), "Müller"),
        (b"ISO_IR 999", b"ABC", "ABC"),
        (b"ISO\0IR", b"ABC", "ABC"),
        (b"hex", b"4142", "4142"),
        (b"rot13", b"ABC", "ABC"),
        (b"\\idna", b"\x1b$BABC", "\x1b$BABC"),
    ],
)
def test_character_sets(charset: bytes, raw: bytes, text: str) -> None:
    data = element(0x00080005, "CS", charset) + element(0x00100020, "LO", raw)
    assert scan_dataset(data, EXPLICIT, TAGS) == {0x00100020: text}


def test_two_ids_that_do_not_fit_their_character_set_stay_two() -> None:
    declared = element(0x00080005, "CS", b"ISO_IR 192")
    ids = [
        scan_dataset(declared + element(0x00100020, "LO", raw), EXPLICIT, TAGS)
        for raw in (b"A\xfe", b"A\xff")
    ]
    assert ids[0] != ids[1]


@pytest.mark.parametrize(
    ("vr", "raw", "text"),
    [
        ("LO", b" 4711 \0", "4711"),
        ("LO", b"", ""),
        ("CS", b"A \\ B ", "A\\B"),
        ("ST", b"A \\ B ", "A \\ B"),
        ("US", pack("<2H", 512, 7), "512\\7"),
        ("SS", pack("<h", -3), "-3"),
        ("FD", pack("<d", 0.5), "0.5"),
        ("US", b"\1", ""),
    ],
)
def test_padding_several_values_and_numbers(vr: str, raw: bytes, text: str) -> None:
    assert scan_dataset(element(0x00091001, vr, raw), EXPLICIT, {0x00091001}) == {0x00091001: text}


def test_an_empty_element_at_the_very_end_is_read_from_single_bytes() -> None:
    header = HeaderScan(EXPLICIT, TAGS)
    for byte in UID_ELEMENT + element(0x00100020, "LO", b""):
        header.feed(bytes([byte]))
    header.end()
    assert header.values == {0x00080018: "1.2.3", 0x00100020: ""}


def test_big_endian() -> None:
    data = element(0x00080018, "UI", b"1.2.3\0", ">") + element(0x00280010, "US", pack(">H", 512), ">")
    assert scan_dataset(data, BIG, TAGS) == {0x00080018: "1.2.3", 0x00280010: "512"}


@pytest.mark.parametrize("cut", range(1, len(ID_ELEMENT)))
def test_an_end_within_an_element_is_refused(cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="ends within"):
        scan_dataset(UID_ELEMENT + ID_ELEMENT[:cut], EXPLICIT, TAGS)
