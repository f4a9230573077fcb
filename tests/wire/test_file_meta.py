"""File meta information compared with pydicom's, on its own test files; and files that are not DICOM."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.wire.file_meta import MAX_META_SIZE, FileMeta, read_file_meta

BEGIN = bytes(range(128)) + b"DICM"


def short(element: int, vr: bytes, value: bytes, group: int = 2) -> bytes:
    return pack("<HH2sH", group, element, vr, len(value)) + value


UIDS = (
    short(0x0002, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0")
    + short(0x0003, b"UI", b"1.2.3\0")
    + short(0x0010, b"UI", b"1.2.840.10008.1.2.1\0")
)
DATASET = short(0x0018, b"UI", b"1.2.3\0", group=8)


def real_files() -> Iterator[Path]:
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm")):
        try:
            meta = dcmread(path, stop_before_pixels=True).file_meta
        except (InvalidDicomError, OSError):
            continue
        if "TransferSyntaxUID" in meta:
            yield path


def test_real_files_are_read_as_pydicom_reads_them() -> None:
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in real_files():
            data, ds = path.read_bytes(), dcmread(path, stop_before_pixels=True)
            meta = read_file_meta(data)
            assert meta is not None
            expected = ds.file_meta
            assert meta.transfer_syntax == expected.TransferSyntaxUID, path
            assert meta.sop_uid == expected.get("MediaStorageSOPInstanceUID", ""), path
            group = data[meta.size : meta.size + 2]
            assert group != b"\2\0", path
            seen += 1
    assert seen > 50


@pytest.mark.parametrize("length", [None, 0, -4, 7, 4_000_000_000], ids=str)
def test_a_length_that_is_missing_or_wrong_is_not_believed(length: int | None) -> None:
    head = b"" if length is None else short(0, b"UL", pack("<L", length & 0xFFFFFFFF))
    data = BEGIN + head + UIDS + DATASET
    expected = FileMeta(len(data) - len(DATASET), "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
    assert read_file_meta(data) == expected


def test_its_length_ends_it_where_the_dataset_looks_like_more() -> None:
    """A deflated dataset may begin with any bytes."""
    data = BEGIN + short(0, b"UL", pack("<L", len(UIDS))) + UIDS
    meta = read_file_meta(data + b"\2\0\x10\0UI\4\0abcd")
    assert meta is not None
    assert meta.size == len(data)


def test_too_few_bytes_are_not_an_error() -> None:
    data = BEGIN + short(0, b"UL", pack("<L", len(UIDS))) + UIDS
    for length in range(len(data)):
        assert read_file_meta(data[:length]) is None, length
    assert read_file_meta(memoryview(data)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"<html>" * 50,
        bytes(128) + b"DICX" + UIDS,
        BEGIN + pack("<HH2sHL", 2, 0x0102, b"OB", 0, MAX_META_SIZE),
        BEGIN + pack("<HH2sHL", 2, 0x0102, b"OB", 0, 0xFFFFFFFF),
        BEGIN + short(0x0100, b"LO", b"x" * 60_000) * 3,
    ],
    ids=["html", "no prefix", "large", "endless", "many"],
)
def test_what_is_no_file_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_file_meta(data + bytes(MAX_META_SIZE))
