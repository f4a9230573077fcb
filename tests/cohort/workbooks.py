"""Writes small XLSX workbooks, cell by cell, so that a test says exactly what stands in the file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"

#: Styles by their index in cells: nothing, a date, eight digits, date and time, a custom date, a literal.
GENERAL, DATE, EIGHT_DIGITS, MOMENT, GERMAN_DATE, LITERAL = range(6)
_STYLES = (
    f'<styleSheet xmlns="{_MAIN}"><numFmts>'
    '<numFmt numFmtId="164" formatCode="00000000"/>'
    '<numFmt numFmtId="165" formatCode="[$-407]dd\\.mm\\.yyyy;@"/>'
    '<numFmt numFmtId="166" formatCode="0&quot; days&quot;"/></numFmts>'
    '<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs>'
    + "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 164, 22, 165, 166))
    + "</cellXfs></styleSheet>"
)


def text(value: str) -> str:
    """A cell with text of its own."""
    return f't="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is>'


def number(value: str, style: int = GENERAL) -> str:
    """A cell with a number as it is stored."""
    return f's="{style}"><v>{value}</v>'


def shared(index: int) -> str:
    """A cell with one of the shared strings."""
    return f't="s"><v>{index}</v>'


def error(value: str) -> str:
    """A cell with an error."""
    return f't="e"><v>{value}</v>'


def sheet(rows: Iterable[Sequence[str]], first: int = 1) -> str:
    """Rows of cells; an empty string is no cell at all."""
    return "".join(
        f'<row r="{line}">{"".join(_cell(at, line, cell) for at, cell in enumerate(row) if cell)}</row>'
        for line, row in enumerate(rows, first)
    )


def _cell(column: int, line: int, content: str) -> str:
    return f'<c r="{chr(65 + column)}{line}" {content}</c>'


def _state(hidden: bool) -> str:
    return "hidden" if hidden else "visible"


def workbook(
    *sheets: tuple[str, str], strings: Sequence[str] = (), properties: str = "", hidden: Sequence[str] = ()
) -> bytes:
    """A workbook of sheets, each a name and its rows; ``strings`` are ``<si>`` contents."""
    stream = io.BytesIO()
    numbers = range(1, len(sheets) + 1)
    listed = "".join(
        f'<sheet name="{name}" sheetId="{n}" state="{_state(name in hidden)}" r:id="r{n}"/>'
        for n, (name, _) in zip(numbers, sheets, strict=True)
    )
    related = "".join(
        f'<Relationship Id="r{n}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in numbers
    )
    parts = {
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}">'
        f'<Relationship Id="r1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><workbookPr {properties}/>'
        f"<sheets>{listed}</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">{related}'
        f'<Relationship Id="st" Type="{_OFFICE}/styles" Target="/xl/styles.xml"/>'
        f'<Relationship Id="ss" Type="{_OFFICE}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
        "xl/styles.xml": _STYLES,
        "xl/sharedStrings.xml": f'<sst xmlns="{_MAIN}">{"".join(f"<si>{one}</si>" for one in strings)}</sst>',
    }
    for n, (_, rows) in zip(numbers, sheets, strict=True):
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f'<worksheet xmlns="{_MAIN}"><sheetData>{rows}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as book:
        for name, content in parts.items():
            book.writestr(name, content)
    return stream.getvalue()


def change_part(
    content: bytes, part: str, old: str, new: str, rename: Callable[[str], str] = lambda name: name
) -> bytes:
    """A workbook in which a text of a part is another one, and the parts have other names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(stream, "w") as after:
        for name in before.namelist():
            body = before.read(name).decode()
            if name == part:
                assert old in body
                body = body.replace(old, new)
            after.writestr(rename(name), body)
    return stream.getvalue()
