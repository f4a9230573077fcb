"""The DICOM JSON Model as servers write it: read where it is clear, refused where it is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.archive.dicomweb.json_model import parse_datasets
from dicom_quarry.archive.instance_listing import get_count
from dicom_quarry.errors import RemoteProtocolError

UID, DESCRIPTION, NAME, ID, COUNT = TAGS = (0x0020000D, 0x00081030, 0x00100010, 0x00100020, 0x00201208)


def one(text: str | bytes, charset: str = "") -> dict[int, str]:
    (row,) = parse_datasets(text.encode() if isinstance(text, str) else text, TAGS, charset)
    return row


@pytest.mark.parametrize("text", ["", " \r\n\t", "[]", "{}", "null", " [ ] ", "\ufeff", "\0", "\ufeff[]"])
def test_nothing_is_no_dataset(text: str) -> None:
    assert parse_datasets(text.encode(), TAGS) == []


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '"x"',
        "7",
        "true",
        '{"error": "x"}',
        '{"detail": {"0020000D": 1}}',
        "<a/>",
        "[{",
        '[{"a": 1}, 2]',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_datasets(text.encode(), TAGS)


@pytest.mark.parametrize(
    "attribute",
    [
        {"vr": "UI", "Value": ["1.2"]},
        {"vr": "UI", "Value": "1.2"},
        {"vr": "UI", "value": ["1.2"]},
        {"VR": "UI", "VALUE": "1.2\0"},
        {"Value": [1.2]},
        ["1.2"],
        "1.2",
    ],
)
@pytest.mark.parametrize("name", ["0020000D", "0020000d", "StudyInstanceUID", "studyinstanceuid"])
def test_a_value_is_read_in_any_form(name: str, attribute: object) -> None:
    for datasets in ([{name: attribute}], {"00080005": {}, name: attribute}):
        assert one(json.dumps(datasets)) == {UID: "1.2"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ({"Alphabetic": "A^B"}, "A^B"),
        ({"alphabetic": "A^B", "IDEOGRAPHIC": "甲"}, "A^B=甲"),
        ({"Alphabetic": None, "Phonetic": "ko"}, "==ko"),
        ({"Alphabetic": ["A"]}, ""),
        ({"vr": "PN", "Value": {"Alphabetic": "A"}}, "A"),
        ({"vr": "PN", "Value": ["A", {"Alphabetic": "B"}]}, "A\\B"),
        ("A^B", "A^B"),
    ],
)
def test_names_are_read_in_any_form(name: object, text: str) -> None:
    assert one(json.dumps([{"00100010": name}])) == {NAME: text}


@pytest.mark.parametrize(
    ("value", "text", "count"),
    [
        ("7", "7", 7),
        ('"007"', "007", 7),
        ("7.0", "7", 7),
        ("7.5", "7.5", None),
        ("-7", "-7", None),
        ('"+7"', "+7", 7),
        ('"seven"', "seven", None),
        ("null", "", None),
        ("9223372036854775808", "9223372036854775808", None),
        ("2147483647", "2147483647", 2**31 - 1),
        ("2147483648", "2147483648", None),
        ("9" * 5000, "9" * 5000, None),
        ('"' + "0" * 5000 + '1"', "0" * 5000 + "1", 1),
        ("1e300", "1e+300", None),
        ("1e999", "inf", None),
        ("NaN", "nan", None),
        ('"\\ud83d\\ude00"', "\U0001f600", None),
        ('"\\ud83d"', "&#55357;", None),
        ('"٣"', "٣", None),
    ],
)
def test_no_number_breaks_anything(value: str, text: str, count: int | None) -> None:
    row = one(f'[{{"00201208": {{"vr": "IS", "Value": [{value}]}}}}]')
    assert row == {COUNT: text}
    assert get_count(row, "NumberOfStudyRelatedInstances") == count


@pytest.mark.parametrize("attribute", [True, {"Value": [False]}, {"Value": [{"00080100": {}}]}, [[]]])
def test_what_is_no_text_is_absent(attribute: object) -> None:
    assert one(json.dumps([{"00081030": attribute, "00100020": "4"}])) == {ID: "4"}


def test_values_are_read_in_the_right_character_set() -> None:
    text = '[{"00081030": {"Value": ["Schädel Ärzte"]}, "00100020": {"Value": ["7"]}}]'
    wanted = {DESCRIPTION: "Schädel Ärzte", ID: "7"}
    for codec in ("utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32-le"):
        for charset in ("", "utf-8", "iso-8859-1", "no-such", "hex"):
            assert one(text.encode(codec), charset) == wanted, (codec, charset)
    japanese = '[{"00081030": {"Value": ["胸部"]}}]'
    for codec in ("utf-8", "shift_jis", "iso2022_jp", "euc_jp"):
        assert one(japanese.encode(codec), codec) == {DESCRIPTION: "胸部"}
    assert one(japanese.encode(), "iso-8859-1") == {DESCRIPTION: "胸部"}, "declared by default, and wrong"


def test_of_two_character_sets_each_is_read() -> None:
    body = '[{"00081030": "胸部"}, {"00081030": "'.encode() + "Schädel".encode("latin-1") + b'"}]'
    assert [row[DESCRIPTION] for row in parse_datasets(body, TAGS)] == ["胸部", "Schädel"]


def test_ends_of_lines_in_values_are_read() -> None:
    assert one('[{"00081030": {"Value": ["a\nb\tc"]}}]') == {DESCRIPTION: "a\nb\tc"}


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"00081030":' * 200_000, '[{"00081030":' + "[" * 100_000])
def test_deep_json_is_refused(deep: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_datasets(deep.encode(), TAGS)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["0020000d", "00081030", "Value", "value", "Alphabetic", "PatientID"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        rows = parse_datasets(json.dumps(value).encode(), TAGS)
    except RemoteProtocolError:
        return
    for row in rows:
        for text in row.values():
            text.encode()


@given(st.binary(max_size=60), st.sampled_from(["", "utf-16", "cp932", "idna", "zlib"]))
def test_any_bytes_are_read_or_refused(body: bytes, charset: str) -> None:
    try:
        parse_datasets(body, TAGS, charset)
    except RemoteProtocolError:
        return
