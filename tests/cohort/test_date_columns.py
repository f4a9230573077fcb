"""Dates whose form is not clear: a column is read as a whole, or refused with the formats that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.cohort.date_formats import check_date_format, find_formats
from dicom_quarry.errors import ConfigError
from tests.cohort.test_tables import read


def dates(tmp_path: Path, *cells: str, header: str = "Study Date", **options: Any) -> list[str]:
    """The date of every row, or its problem."""
    table = f"Accession;{header}\n" + "".join(f"1;{cell}\n" for cell in cells)
    return [one.problem or dict(one.keys)["StudyDate"] for one in read(tmp_path, table, **options).requests]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("02/03/2018", "12/24/2018"), ["20180203", "20181224"]),
        (("12/24/2018", "2/3/2018"), ["20181224", "20180203"]),
        (("02.03.2018", "24.12.2018"), ["20180302", "20181224"]),
        (("5-5-2018",), ["20180505"]),
        (("24-Dec-2018", "2-May-2018"), ["20181224", "20180502"]),
        (("24DEC2018",), ["20181224"]),
        (("Dec 24, 2018", "May 2, 2018"), ["20181224", "20180502"]),
        (("24122018", "02032018"), ["20181224", "20180302"]),
        (("2018.12.24",), ["20181224"]),
        (("02/03/2018 - 12/24/2018",), ["20180203-20181224"]),
    ],
)
def test_the_one_format_that_fits_is_taken(
    tmp_path: Path, cells: tuple[str, ...], expected: list[str]
) -> None:
    cells = tuple(cell for cell in cells if cell)
    assert dates(tmp_path, *cells) == expected


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (
            ("02/03/2018", "04/03/2018"),
            "use --date-format %d/%m/%Y to read it as 2018-03-02, or --date-format %m/%d/%Y to read it as "
            "2018-02-03",
        ),
        (("24-Dec-18", "31-Dec-18"), "use --date-format %d-%b-%y to read it as 2018-12-24, or"),
        (("24-Dec-18", "24-Dec-98"), "use --date-format %d-%b-%y to read it as 2018-12-24"),
        (("12/24/18",), "use --date-format %m/%d/%y to read it as 2018-12-24"),
        (("12/24/2018 14:30",), "use --date-format '%m/%d/%Y %H:%M' to read it as 2018-12-24"),
        (("12/24/2018 2:30:00 PM",), "use --date-format '%m/%d/%Y %I:%M:%S %p' to read"),
        (("43304", "43305"), "use --date-format excel to read it as 2018-07-23"),
        (("12/24/2018", "24/12/2018"), "line 2 can only be %m/%d/%Y, line 3 only %d/%m/%Y; write all dates"),
        (("02/03/2018", "12/24/2018", "24-Dec-2018"), "line 3 can only be %m/%d/%Y, line 4 only %d-%b-%Y"),
        (("02/03/2018", "2018-03-04", "12/24/2018"), "use --date-format %m/%d/%Y to read it as 2018-02-03"),
        (("13/13/2018",), "is not a clear date; write YYYYMMDD or YYYY-MM-DD"),
    ],
)
def test_a_column_in_doubt_is_refused_with_the_formats_that_fit(
    tmp_path: Path, cells: tuple[str, ...], problem: str
) -> None:
    assert problem in dates(tmp_path, *cells)[0]


def test_both_ends_of_a_range_have_one_format(tmp_path: Path) -> None:
    cohort = read(tmp_path, "MRN,From,Until\n1,02/03/2018,12/24/2018\n")
    assert dict(cohort.requests[0].keys)["StudyDate"] == "20180203-20181224"


def test_a_declared_format_that_does_not_fit_is_answered_with_the_one_that_does(tmp_path: Path) -> None:
    problem = dates(tmp_path, "12/24/2018", date_format="dd/mm/yyyy")[0]
    assert "is not a date in the format %d/%m/%Y; write YYYYMMDD" in problem
    assert "use --date-format %m/%d/%Y to read it as 2018-12-24" in problem


@pytest.mark.parametrize(
    ("spelled", "form"),
    [
        ("mm/dd/yyyy", "%m/%d/%Y"),
        ("M/D/YYYY", "%m/%d/%Y"),
        ("dd-mmm-yy", "%d-%b-%y"),
        ("DD-MON-YYYY", "%d-%b-%Y"),
        ("tt.mm.jjjj", "%d.%m.%Y"),
        ("jj/mm/aaaa", "%d/%m/%Y"),
        ("yyyymmdd", "%Y%m%d"),
        ("mmmm d, yyyy", "%B %d, %Y"),
        ("yyyy-mm-dd hh:mm:ss", "%Y-%m-%d %H:%M:%S"),
        ("yyyy-mm-ddThh:mm", "%Y-%m-%dT%H:%M"),
        ("YYYY-MM-DD HH24:MI", "%Y-%m-%d %H:%M"),
        ("m/d/yyyy h:mm AM/PM", "%m/%d/%Y %I:%M %p"),
        ("Excel", "excel"),
        (" %d/%m/%Y ", "%d/%m/%Y"),
    ],
)
def test_spellings_of_a_format(spelled: str, form: str) -> None:
    assert check_date_format(spelled) == form


@pytest.mark.parametrize("spelled", ["mm/yyyy", "dd/mm", "date", "", "%d/%m", "yyyy-mm-yy"])
def test_texts_that_are_no_format(spelled: str) -> None:
    with pytest.raises(ConfigError, match="does not contain year, month and day; write them as in"):
        check_date_format(spelled)


@pytest.mark.parametrize("text", ["", "x", "1", "12/24", "99/99/2018", "31/02/2018", "4711-12-2018", "0" * 8])
def test_texts_that_are_no_date_have_no_format(text: str) -> None:
    assert not find_formats(text)
