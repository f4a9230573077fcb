"""Number formats: the text that Excel shows, or a cell that no key can use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.cohort.cell_values import UnreadableCell, WorkbookDate, parse_value
from dicom_quarry.cohort.number_format import NumberFormat


def show(code: str, value: str) -> str:
    return NumberFormat.parse(164, code).format_number(value, epoch_1904=False)


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [
        ('"MRN"0000000', "4711", "MRN0004711"),
        (r"\M\R\N0000", "12", "MRN0012"),
        ("000-00-0000", "123456789", "123-45-6789"),
        ("000-00-0000", "1234", "000-00-1234"),
        ("00-0000", "123456789", "12345-6789"),
        ('0000"-A"', "12", "0012-A"),
        ('000000"/18"', "471", "000471/18"),
        ("(000) 000-0000", "5551234567", "(555) 123-4567"),
        ("###-##", "5", "-5"),
        ("00000000", "1234", "00001234"),
        ("@", "4711", "4711"),
        ('"MRN"@', "4711", "MRN4711"),
        ('"A"General', "7", "A7"),
        ("[Red]0000;[Blue]-0000", "12", "0012"),
        ("0000;(0000)", "-12", "(0012)"),
        ("0000", "-12", "-0012"),
        ("0;-0;;@", "4711", "4711"),
        ("#,##0", "4711", "4,711"),
        ("#,##0", "711", "711"),
        ("0,000", "12", "0,012"),
        ("0.00", "4711", "4711.00"),
        ("0.00", "4711.25", "4711.25"),
        ("0%", "0.5", "50%"),
        ("[$\N{EURO SIGN}-407] 0", "12", "\N{EURO SIGN} 12"),
        ("General", "1.2345E4", "12345"),
        ("General", "4711.5", "4711.5"),
        ("yyyy-mm-dd", "43304", "2018-07-23"),
        ('"Scan "dd"."mm"."yyyy', "43304", "2018-07-23"),
        ("[$-407]dd\\.mm\\.yyyy;@", "43304", "2018-07-23"),
        ("[$-F800]dddd, mmmm dd, yyyy", "43304", "2018-07-23"),
        ("yyyy-mm-dd", "43304.75", "2018-07-23"),
        ("yyyy-mm-dd hh:mm", "43304.75", "2018-07-23 18:00:00"),
        ("mmm-yy", "43304", "2018-07"),
    ],
)
def test_shown_as_excel_shows_it(code: str, value: str, shown: str) -> None:
    found = show(code, value)
    assert found.strip() == shown
    assert not isinstance(found, UnreadableCell)


@pytest.mark.parametrize(
    ("code", "value", "problem"),
    [
        (";;;", "4711", "is not shown"),
        ("0;-0;;@", "0", "is not shown"),
        ('"hidden"', "4711", "is not shown"),
        ("#", "0", "is not shown"),
        ("0,", "4711000", "is not shown"),
        ("# ?/?", "4711", "is not shown"),
        ("0", "4711.4", "fewer digits than it has"),
        ("0.0", "4711.25", "fewer digits than it has"),
        ("0.00E+00", "4711", "powers of ten"),
        ("##0.0E+0", "4711", "powers of ten"),
        ("[<=9999999]###-####;(###) ###-####", "5551234567", "not known"),
        ("[DBNum1]0", "12", "not known"),
        ("[$-2000401]0", "12", "not known"),
        ("0*-", "12", "not known"),
        ("h:mm", "4711", "a time or a weekday"),
        ("[h]:mm:ss", "0.5", "a time or a weekday"),
        ("dddd", "43304", "a time or a weekday"),
        ("yyyy", "43304", "shows a part"),
        ("d-mmm", "43304", "shows a part"),
        ("yyyy-mm-dd", "20180723", "but is not one"),
        ("yyyy-mm-dd", "-1", "but is not one"),
        ("0", "1234567890123456", "more digits than a spreadsheet keeps"),
    ],
)
def test_a_number_that_is_not_shown_is_no_key(code: str, value: str, problem: str) -> None:
    cell = show(code, value)
    assert isinstance(cell, UnreadableCell)
    for keyword in ("PatientID", "AccessionNumber", "StudyDate", "StudyInstanceUID"):
        found = parse_value(keyword, cell, verbatim=True)
        assert not found.text
        assert problem in found.problem


def test_a_date_is_no_identifier() -> None:
    cell = show("dd.mm.yyyy", "43304")
    assert isinstance(cell, WorkbookDate)
    assert parse_value("StudyDate", cell).text == "20180723"
    assert "is a date in the workbook" in parse_value("PatientID", cell, verbatim=True).problem


@pytest.mark.parametrize(
    ("code", "shown"),
    [("General", "4711"), ("@", "4711"), ("0000", "4711"), ('"MRN"@', "MRN4711"), ('0;0;0;"P"@', "P4711")],
)
def test_a_format_may_add_to_a_text(code: str, shown: str) -> None:
    assert NumberFormat.parse(164, code).format_text("4711") == shown
    assert isinstance(NumberFormat.parse(164, "0;0;0;").format_text("4711"), UnreadableCell)


@given(code=st.text("0#?,.%@;-/ eE+dmyhs[]\"\\_*'$A", max_size=12), value=st.floats(-1e15, 1e15).map(repr))
def test_no_format_makes_another_number_of_a_number(code: str, value: str) -> None:
    shown = show(code, value)
    is_moment = "-" in shown and shown.count(":") == 2
    if isinstance(shown, UnreadableCell | WorkbookDate) or "%" in shown or is_moment:
        return
    digits = "".join(char for char in shown if char.isdigit())
    number = float(value)
    assert digits
    if number == int(number) != 0:
        assert str(abs(int(number))) in digits
