"""Columns whose header resembles a key's: refused until ``--map`` or ``--ignore-column`` decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.cohort.headers import name_keyword
from dicom_quarry.cohort.read_options import ReadOptions
from dicom_quarry.errors import ConfigError, InputError
from tests.cohort.test_tables import read, row_keys


@pytest.mark.parametrize(
    ("header", "column", "keyword"),
    [
        ("PatientID*", "PatientID*", "PatientID"),
        ("MRN (hospital)", "MRN (hospital)", "PatientID"),
        ('"MRN\n(8 digits)"', "MRN (8 digits)", "PatientID"),
        ("MRN\N{SUPERSCRIPT ONE}", "MRN\N{SUPERSCRIPT ONE}", "PatientID"),
        ("Study Date [UTC]", "Study Date [UTC]", "StudyDate"),
        ("Study UID\N{DAGGER}", "Study UID\N{DAGGER}", "StudyInstanceUID"),
    ],
)
def test_a_doubtful_column_is_refused_with_both_remedies(
    tmp_path: Path, header: str, column: str, keyword: str
) -> None:
    table = f"Accession,{header}\n2,1.2\n"
    with pytest.raises(InputError) as caught:
        read(tmp_path, table)
    assert str(caught.value) == (
        f"{tmp_path / 'cohort.csv'}, line 1: the column '{column}' (2) is not searched by under this name: "
        f"did you mean {name_keyword(keyword)}? If so, add --map '{column}={keyword}'; if not, add "
        f"--ignore-column '{column}'"
    )
    left_out = read(tmp_path, table, ignore_column=[column])
    assert [mapped for _, mapped in left_out.mapping] == ["AccessionNumber"]
    assert left_out.unused == (column,)
    if keyword != "StudyDate":
        used = read(tmp_path, table, map=[f"{column}={keyword}"])
        assert [mapped for _, mapped in used.mapping] == ["AccessionNumber", keyword]


def test_all_doubtful_columns_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)'Acc. No. \(RIS\)' \(1\) .* 'MRN or EMPI' \(2\)"):
        read(tmp_path, "Acc. No. (RIS),MRN or EMPI\n1,2\n")


def test_a_doubtful_header_in_quotes_is_shown_for_a_shell(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="""--ignore-column 'ward'"'"'s MRN'"""):
        read(tmp_path, "Accession,ward's MRN\n1,2\n")


def test_a_key_that_map_decides_leaves_no_doubt(tmp_path: Path) -> None:
    cohort = read(tmp_path, "MRN (old),MRN (new)\n1,2\n", map=["MRN (new)=PatientID"], whole_patients=True)
    assert row_keys(cohort) == [(1, 2, "P=2")]


def test_a_range_whose_end_is_doubtful_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the column 'From\*' \(2\) .* did you mean Study Date From\?"):
        read(tmp_path, "MRN,From*,Until\n1,20180101,20180131\n", whole_patients=True)
    assert row_keys(read(tmp_path, "Accession,From*\n2,ward 7\n")) == [(1, 2, "A=2")]


def test_an_ignored_column_is_not_a_key_whatever_its_name(tmp_path: Path) -> None:
    cohort = read(tmp_path, "MRN,EMPI,Accession\n1,9,2\n", ignore_column=["mrn"])
    assert row_keys(cohort) == [(1, 2, "P=9 A=2")]
    with pytest.raises(InputError, match="--ignore-column 'Ward': there is no column 'Ward'; the table has"):
        read(tmp_path, "Accession\n1\n", ignore_column=["Ward"])


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="'mrn ' is both in --map and in --ignore-column"):
        ReadOptions.parse(map=["MRN=PatientID"], ignore_column=["mrn "])
    with pytest.raises(ConfigError, match="--ignore-column: the header is missing"):
        ReadOptions.parse(ignore_column=[" "])
    with pytest.raises(ConfigError, match="--hidden-rows 'show': write take or skip"):
        ReadOptions.parse(hidden_rows="show")


def test_options_that_decide_on_keys_change_the_digest(tmp_path: Path) -> None:
    table = "Accession,MRN\n1,2\n"
    plain = read(tmp_path, table).digest
    assert read(tmp_path, table, ignore_column=["MRN"]).digest != plain
    assert read(tmp_path, table, hidden_rows="skip").digest != plain
