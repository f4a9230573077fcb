"""What comes from outside never steers a terminal, in whatever form it is shown."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

import dicom_quarry
from dicom_quarry.api import make_visible
from dicom_quarry.cli import console
from dicom_quarry.cli.console import SafeConsole, write_line

EVIL = "a\x1b[31mb\x1b]0;title\x07c\x9bd\u202ee :1234: :smile: [red]f[/red] \udc80"
SHOWN = r"a\x1b[31mb\x1b]0;title\x07c\x9bd\u202ee :1234: :smile: [red]f[/red] \udc80"
#: rich drops a few control characters of its own accord.
IN_TEXT = SHOWN.replace(r"\x07", "")


def table() -> Table:
    made = Table(EVIL)
    made.add_row(Text(EVIL))
    return made


def shown(what: object, **options: object) -> str:
    stream = io.StringIO()
    SafeConsole(file=stream, width=400, **options).print(what)
    return stream.getvalue()


KINDS = {"str": EVIL, "text": Text(EVIL), "group": Group(Text(EVIL)), "table": table()}


@pytest.mark.parametrize("what", KINDS.values(), ids=KINDS)
def test_every_kind_of_output_is_visible(what: object) -> None:
    for options in ({}, {"force_terminal": True, "color_system": None}):
        text = shown(what, **options)
        # A table is as wide as its text was before: it is cut, never steered.
        assert (IN_TEXT if not isinstance(what, Table) else r"a\x1b[31mb") in text.replace(r"\x07", "")
        assert not {"\x1b", "\x9b", "\x07", "\u202e", "\udc80"} & set(text)


def test_a_live_display_shows_what_is_visible() -> None:
    stream = io.StringIO()
    shown_by = SafeConsole(file=stream, width=400, force_terminal=True, color_system=None)
    with Live(Text(EVIL), console=shown_by, auto_refresh=False) as live:
        live.update(table(), refresh=True)
        shown_by.print(EVIL)
    assert stream.getvalue().count(r"a\x1b[31mb") >= 3
    assert "\x1b[31m" not in stream.getvalue() and "\x1b]0" not in stream.getvalue()


def test_colours_are_those_of_quarry() -> None:
    text = shown(Text("good", "green"), force_terminal=True, color_system="standard")
    assert text == "\x1b[32mgood\x1b[0m\n"


def test_lines_and_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_line(f"{EVIL}\nsecond")
    assert capsys.readouterr().out == f"{SHOWN}\nsecond\n"
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", SafeConsole(file=stream, width=400))
    console.fail(EVIL)
    assert stream.getvalue() == f"quarry: {IN_TEXT}\n"


def test_text_without_control_characters_stays() -> None:
    for text in ("", "M\u00fcller \u738b\u5c0f\u6771", "two\nlines\tand\u00a0a space"):
        assert make_visible(text) == text


def test_commands_write_through_the_console_alone() -> None:
    """JSON, a version and a letter have no control characters, or are no terminal output."""
    names = ("check", "explain", "plan", "list_jobs", "status")
    allowed = {"main.py", "console.py", *(f"commands/{name}.py" for name in names)}
    folder = Path(dicom_quarry.__file__).parent / "cli"
    for path in folder.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        uses_print = any(isinstance(func, ast.Name) and func.id == "print" for func in calls)
        uses_console = any(isinstance(func, ast.Name) and func.id == "Console" for func in calls)
        assert not uses_console, path
        assert not uses_print or path.relative_to(folder).as_posix() in allowed, path
