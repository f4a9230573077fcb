"""Rewrites: the values that are queried, in their order, and the notes on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.read_options import (
    ReadOptions,
    describe_rewrites,
    list_candidates,
    parse_pad,
    parse_rewrite,
)
from dicom_quarry.errors import ConfigError
from tests.cohort.test_tables import read


@pytest.mark.parametrize(
    ("rewrite", "given_", "also"),
    [
        ("yyyy-to-yy", "ABCDE201812345", ["ABCDE1812345"]),
        ("yyyy-to-yy", "12345201812019", ["123451812019"]),  # the shape says which of two
        ("yyyy-to-yy", "CT2018-0001", ["CT18-0001"]),
        ("yyyy-to-yy", "19991234", ["991234"]),
        ("yyyy-to-yy", "2018-2019", []),  # two years
        ("yyyy-to-yy", "X20201", ["X201"]),
        ("yyyy-to-yy", "12345678", []),
        ("yyyy-to-yy", "18991", []),
        ("s/-//", "12-34-5", ["1234-5"]),
        ("s/-//g", "12-34-5", ["12345"]),
        ("s|^0+||", "00012", ["12"]),
        ("s/^a/B/i", "A1", ["B1"]),
        (r"s/(\d+)-(\d+)/\2\1/", "12-34", ["3412"]),
        (r"s/\/x/y/", "1/x", ["1y"]),
        ("Accession:s/^/A/", "1", ["A1"]),
        ("MRN:s/^/A/", "1", []),
        ("s/.*/x*/", "1", []),  # a wildcard is nothing to ask for
        ("s/.*//", "1", []),
        ("s/$/12345678901234567/", "1", []),  # too long
    ],
)
def test_the_value_as_given_comes_first(tmp_path: Path, rewrite: str, given_: str, also: list[str]) -> None:
    request = read(tmp_path, f"Accession\n{given_}\n", rewrite=[rewrite]).requests[0]
    assert request.keys == (("AccessionNumber", given_),)
    assert [keys[0][1] for keys in request.alternatives] == also
    assert request.note == ""


def test_a_value_too_long_to_be_asked_for_is_replaced(tmp_path: Path) -> None:
    cohort = read(tmp_path, "Accession\nABCDEFG2018123456\nABCDEFG201812345\n", rewrite=["long-accession"])
    first, second = cohort.requests
    assert first.keys == (("AccessionNumber", "ABCDEFG18123456"),)
    assert first.alternatives == second.alternatives == ()
    assert second.keys == (("AccessionNumber", "ABCDEFG201812345"),)
    assert first.note == "AccessionNumber ABCDEFG2018123456 changed to ABCDEFG18123456 (long-accession)"
    assert cohort.notes == (
        "row 1, column 'Accession': \"ABCDEFG2018123456\" changed to ABCDEFG18123456 (long-accession)",
    )


def test_a_value_that_stays_too_long_is_refused_as_given(tmp_path: Path) -> None:
    request = read(tmp_path, f"Accession\n{'1' * 30}\n", rewrite=["long-accession"]).requests[0]
    assert request.problem.endswith(
        "has 30 characters, but AccessionNumber has at most 16 in DICOM; correct the value, or use "
        "--long-identifiers if the archive has such values"
    )


def test_digits_that_a_spreadsheet_lost_are_not_rewritten(tmp_path: Path) -> None:
    assert (
        "digits are lost" in read(tmp_path, "Accession\n1.23E+10\n", rewrite=["s/E.*//"]).requests[0].problem
    )


def test_padding_takes_the_place_of_the_value(tmp_path: Path) -> None:
    rows = "EMPI,Accession\n1234,1\n00001234,1\nA12,1\n123456789,1\n'12.0,1\n"
    cohort = read(tmp_path, rows, pad=["MRN=8"])
    ids = [dict(one.keys)["PatientID"] for one in cohort.requests]
    assert ids == ["00001234", "00001234", "A12", "123456789", "00000012"]
    assert not any(one.alternatives for one in cohort.requests)
    assert cohort.requests[0].key_hash() == cohort.requests[1].key_hash()
    assert cohort.requests[0].note == "PatientID 1234 changed to 00001234 (pad PatientID=8)"


def test_several_rewrites_are_tried_alone_and_together(tmp_path: Path) -> None:
    options = {"rewrite": ["Accession:s/-//", "yyyy-to-yy"], "pad": ["PatientID=4"]}
    cohort = read(
        tmp_path, "EMPI,Accession,StudyDate\n1,AB-2018,20180723\n", **options, where=["Modality=CT"]
    )
    (request,) = cohort.requests
    rest = (("StudyDate", "20180723"), ("ModalitiesInStudy", "CT"))
    key_sets = [request.keys, *request.alternatives]
    assert key_sets == [
        (("PatientID", "0001"), ("AccessionNumber", text), *rest)
        for text in ("AB-2018", "AB2018", "AB-18", "AB18")
    ]
    assert cohort.notes[1:] == (
        "row 1, column 'Accession': \"AB-2018\" also searched as AB2018 (Accession:s/-//)",
        "row 1, column 'Accession': \"AB-2018\" also searched as AB-18 (yyyy-to-yy)",
        "row 1, column 'Accession': \"AB-2018\" also searched as AB18 (Accession:s/-//, yyyy-to-yy)",
    )
    assert describe_rewrites(request, request.keys) == "PatientID 1 changed to 0001 (pad PatientID=4)"
    assert describe_rewrites(request, key_sets[3]) == (
        "PatientID 1 changed to 0001 (pad PatientID=4); AccessionNumber AB-2018 searched as AB18"
    )


def test_of_two_keys_the_fewest_changes_come_first(tmp_path: Path) -> None:
    request = read(tmp_path, "MRN,Accession\n1,2\n", rewrite=["s/^/0/"]).requests[0]
    values = [tuple(value for _, value in keys) for keys in (request.keys, *request.alternatives)]
    assert values == [("1", "2"), ("1", "02"), ("01", "2"), ("01", "02")]


def test_the_first_changes_of_every_key_come_before_later_ones(tmp_path: Path) -> None:
    options = {"rewrite": ["MRN:s/1/2/", "Accession:s/2/3/", "Accession:s/$/x/"]}
    request = read(tmp_path, "MRN,Accession\n1,2\n", **options).requests[0]
    values = ["/".join(value for _, value in keys) for keys in (request.keys, *request.alternatives)]
    assert values == ["1/2", "1/3", "2/2", "1/2x", "2/3", "1/3x", "2/2x", "2/3x"]


@pytest.mark.parametrize(
    "text", ["", "yy-to-yyyy", "s/a/", "s/a/b", "s/a/b/x", "s//b/", "s/(/b/", r"s/a/\1/", "s/a/b/c/d", "sabc"]
)
def test_a_rewrite_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--rewrite"):
        parse_rewrite(text)


def test_rewrites_of_what_is_no_text_are_refused() -> None:
    for text in ("StudyDate:s/a/b/", "SUID:s/a/b/"):
        with pytest.raises(ConfigError, match="cannot be rewritten"):
            parse_rewrite(text)
    with pytest.raises(ConfigError, match="'Foo' is not a search key"):
        parse_rewrite("Foo:s/a/b/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PatientID", "--pad 'PatientID': write KEYWORD=WIDTH, as in PatientID=8"),
        ("PatientID=0", "write KEYWORD=WIDTH"),
        ("PatientID=65", "PatientID has at most 64 characters in DICOM"),
        ("Accession=17", "AccessionNumber has at most 16 characters in DICOM"),
        ("StudyDate=8", "StudyDate cannot be rewritten"),
    ],
)
def test_a_padding_that_cannot_be_done_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pad(text)
    assert message in str(caught.value)


def test_too_many_queries_for_a_row_are_refused() -> None:
    two = ReadOptions.parse(rewrite=["s/a/b/", "s/c/d/"])
    assert len(two.rewrites) == 2
    with pytest.raises(ConfigError, match="up to 64 values for a row, each a query; at most 16"):
        ReadOptions.parse(rewrite=["s/a/b/", "s/c/d/", "s/e/f/"])
    with pytest.raises(ConfigError, match="one width for each keyword"):
        ReadOptions.parse(pad=["MRN=8", "PatientID=9"])


@given(
    value=st.text(min_size=1, max_size=20),
    names=st.lists(st.sampled_from(["yyyy-to-yy", "s/1/2/g", "long-accession"])),
)
def test_as_given_is_always_first_and_nothing_comes_twice(value: str, names: list[str]) -> None:
    found = [
        text for text, _ in list_candidates("AccessionNumber", value, [parse_rewrite(name) for name in names])
    ]
    assert found[0] == value
    assert len(set(found)) == len(found)


def test_long_identifiers_are_taken_as_they_are(tmp_path: Path) -> None:
    uid = f"1.2.{'3' * 90}"
    rows = f"MRN,Accession,SUID,Name\n{'P' * 65},{'A' * 30},{uid},\n1,{'A' * 1025},,\n1,2,,{'x' * 65}\n"
    options = {"map": ["Name=StudyDescription"]}
    plain = read(tmp_path, rows, **options)
    assert all(request.problem for request in plain.requests)
    cohort = read(tmp_path, rows, long_identifiers=True, **options)
    first, second, third = cohort.requests
    keys = {"PatientID": "P" * 65, "AccessionNumber": "A" * 30, "StudyInstanceUID": uid}
    assert dict(first.keys) == keys
    assert second.problem.endswith(
        "has 1025 characters, but AccessionNumber has at most 16 in DICOM; correct the value"
    )
    assert third.problem.endswith("StudyDescription has at most 64 in DICOM; correct the value")
    assert cohort.digest != plain.digest
