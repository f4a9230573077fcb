"""Item 30: tables that do not mean what a reader of their bytes takes them for; data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from random import Random
from xml.sax.saxutils import quoteattr

from dicom_quarry.demo.synthetic_studies import TINY, make_patient, make_study
from tests.cohort.workbooks import EIGHT_DIGITS, change_part, error, number, sheet, text, workbook

_CHANCE = Random(30)

#: A study each of two patients. A row with the first patient and the second accession must fetch nothing.
STUDIES = (
    make_study(make_patient(_CHANCE, "MRN0004711"), "1802", date(2018, 7, 23), (TINY, 2)),
    make_study(make_patient(_CHANCE, "4711"), "1801", date(2018, 7, 24), (TINY, 2)),
    make_study(make_patient(_CHANCE, "4712"), "1803", date(2018, 7, 25), (TINY, 2)),
)

_HEAD = [text("MRN"), text("Accession")]
_SHEET = "xl/worksheets/sheet1.xml"


def _book(*rows: list[str]) -> bytes:
    return workbook(("Cohort", sheet([_HEAD, *rows])))


def _in_format(code: str, value: str, accession: str = "1802") -> bytes:
    book = _book([number(value, EIGHT_DIGITS), text(accession)])
    return change_part(book, "xl/styles.xml", '"00000000"', quoteattr(code, {'"': "&quot;"}))


@dataclass(frozen=True)
class TableFault:
    """A table, and what must come of it: a refusal with these words, or the files of each study.

    ``with_options`` lists options, each with the files that are stored when the user gives it.
    """

    name: str
    fault: str
    does: str
    table: str | bytes
    refused: str = ""
    stored: tuple[int, ...] = (0, 0, 0)
    note: str = ""
    with_options: tuple[tuple[Mapping[str, object], tuple[int, ...]], ...] = field(default=())


#: The row whose patient and accession do not belong together.
_OTHER = "4712,1801"

SCENARIOS = (
    TableFault(
        "header-with-a-remark",
        "the header of a key has a remark: MRN (hospital)",
        "refuses the table until --map or --ignore-column decides",
        f"MRN (hospital),Accession\n{_OTHER}\n",
        refused='add map="MRN (hospital)=PatientID"; if not, add ignore_column="MRN (hospital)"',
        with_options=(
            ({"map": ["MRN (hospital)=PatientID"]}, (0, 0, 0)),
            ({"ignore_column": ["MRN (hospital)"]}, (0, 2, 0)),
        ),
    ),
    TableFault(
        "quoted-header-behind-a-space",
        'the header and the cells of a key are in quotes behind a space: Accession, "MRN"',
        "reads them without the space and the quotes",
        'Accession, "MRN"\n1801, "4711"\n1801, "4712"\n',
        stored=(0, 2, 0),
    ),
    TableFault(
        "titles-above-the-header",
        "a title and an empty line are above the header",
        "finds the header, and reports its line",
        "List of our patients;\n;\nMRN;Accession\n4711;1801\n",
        stored=(0, 2, 0),
        note="the header is in line 3; the lines above it are not read",
    ),
    TableFault(
        "decimal-comma",
        "a program wrote identifiers as numbers with a decimal comma: 4711,0",
        "reads 4711, and reports the change",
        "MRN;Accession\n4711,0;1801\n",
        stored=(0, 2, 0),
        note='"4711,0" read as 4711',
    ),
    TableFault(
        "thousands-separator",
        "a program wrote identifiers with a thousands separator: 1.801",
        "refuses the row, until --verbatim decides",
        "MRN,Accession\n4711,1.801\n",
        refused="may be a number with thousands separators",
        with_options=(({"verbatim": ["Accession"]}, (0, 0, 0)),),
    ),
    TableFault(
        "several-values",
        "two accessions are in one cell: 1801; 1803",
        "refuses the row",
        "MRN,Accession\n4711,1801; 1803\n",
        refused="seems to contain several values; write each in a row of its own",
    ),
    TableFault(
        "curly-quotes",
        "a word processor put values in curly quotes, with a zero-width space",
        "reads the values without them, and reports the change",
        "MRN,Accession\n"
        "\N{LEFT DOUBLE QUOTATION MARK}4711\N{RIGHT DOUBLE QUOTATION MARK},18\N{ZERO WIDTH SPACE}01\n",
        stored=(0, 2, 0),
        note="read as 4711",
    ),
    TableFault(
        "date-in-place-of-an-identifier",
        "a spreadsheet made a date of an accession: Jan-18",
        "refuses the row",
        "MRN,Accession\n4711,Jan-18\n",
        refused="is a date or a time, which a spreadsheet may have made of another value",
    ),
    TableFault(
        "one-byte-that-is-not-utf8",
        "one byte of a UTF-8 file is not UTF-8",
        "refuses the table, with line and column",
        "MRN,Accession,Arzt\n4711,1801,Müller\n4712,1803?,x\n".encode().replace(b"?", b"\xff"),
        refused="line 3, column 'Accession': the byte 0xFF is not UTF-8",
    ),
    TableFault(
        "web-page-as-xls",
        "a web page was saved as .xls",
        "refuses the file, with the remedy",
        "<html><table><tr><td>MRN</td></tr></table></html>",
        refused="save it as XLSX, or as 'CSV UTF-8'",
    ),
    TableFault(
        "row-hidden-by-a-filter",
        "a filter of the workbook hides a row (consent = no)",
        "refuses the table, until --hidden-rows take or --hidden-rows skip decides",
        change_part(
            _book([text("4711"), text("1801")], [text("4712"), text("1803")]),
            _SHEET,
            '<row r="3"',
            '<row r="3" hidden="1"',
        ),
        refused="1 row is hidden (row 3), by a filter or by hand",
        with_options=(({"hidden_rows": "skip"}, (0, 2, 0)), ({"hidden_rows": "take"}, (0, 2, 2))),
    ),
    TableFault(
        "hidden-key-column",
        "the column of a key is hidden",
        "refuses the table, until --hidden-rows decides",
        change_part(
            _book([text("4712"), text("1801")]),
            _SHEET,
            "<sheetData>",
            '<cols><col min="1" max="1" hidden="1"/></cols><sheetData>',
        ),
        refused="the column 'MRN' is hidden",
        with_options=(({"hidden_rows": "take"}, (0, 0, 0)), ({"hidden_rows": "skip"}, (0, 2, 0))),
    ),
    TableFault(
        "merged-cells",
        "the patient is in a merged cell over two rows",
        "refuses the second row by its cell: its accession alone may be another patient's",
        change_part(
            _book([text("4711"), text("1801")], ["", text("1803")]),
            _SHEET,
            "</sheetData>",
            '</sheetData><mergeCells><mergeCell ref="A2:A3"/></mergeCells>',
        ),
        refused="cell A3, column 'MRN': is merged with A2",
    ),
    TableFault(
        "formula-without-a-result",
        "the patient is a formula that was never computed",
        "refuses the row by its cell",
        _book(["><f>B9</f><v></v>", text("1801")]),
        refused="cell A2, column 'MRN': \"#VALUE!\" is a formula that has not been computed",
    ),
    TableFault(
        "error-value",
        "the patient is an error value: #N/A",
        "refuses the row by its cell",
        _book([error("#N/A"), text("1801")]),
        refused="cell A2, column 'MRN': \"#N/A\" is a spreadsheet error",
    ),
    TableFault(
        "format-with-letters",
        'a number format shows letters and zeros: 4711 as MRN0004711 ("MRN"0000000)',
        "queries what Excel shows",
        _in_format('"MRN"0000000', "4711"),
        stored=(2, 0, 0),
    ),
    TableFault(
        "format-that-hides-digits",
        "a number format shows powers of ten: 4711 as 4.71E+03",
        "refuses the row by its cell",
        _in_format("0.00E+00", "4711", "1801"),
        refused="cell A2, column 'MRN': \"4.711E+3\" is shown in powers of ten",
    ),
    TableFault(
        "part-names-with-back-slashes",
        "the parts of the workbook are named with back-slashes and capitals",
        "reads them",
        change_part(
            _book([text("4711"), text("1801")]), "", "", "", lambda name: name.replace("/", "\\").upper()
        ),
        stored=(0, 2, 0),
    ),
)
