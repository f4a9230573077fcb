"""The check of names and text finds what it is for, by place and word."""

from __future__ import annotations

import ast

import pytest
from tools.plain_english import Rules, check_names, check_page, check_strings, docstrings

RULES = Rules.load()


@pytest.mark.parametrize(
    "code",
    [
        "def ask_guest(): ...",
        "class GuestList: ...",
        "def f(guest): ...",
        "guest = 1",
        "self.guest = 1",
        "for guest_number in (): ...",
    ],
)
def test_a_banned_word_in_a_name_is_found(code: str) -> None:
    (found,) = check_names("src/x.py", ast.parse(code), RULES)
    assert (found.line, found.word) == (1, "guest")


def test_a_banned_module_name_is_found() -> None:
    assert [one.word for one in check_names("src/berth.py", ast.parse(""), RULES)] == ["berth"]


def test_part_of_another_word_is_no_finding() -> None:
    code = "aggregate = toldo = 1\nclass Roadster: ...\ntext = 'the investigated aggregate is retold'"
    tree = ast.parse(code)
    assert not list(check_names("src/x.py", tree, RULES))
    assert not list(check_strings("src/x.py", tree, RULES))


def test_a_banned_word_in_a_string_is_found_with_its_line() -> None:
    tree = ast.parse('def f():\n    """Do.\n\n    Nobody knows.\n    """\n    return f"{1} vouches"')
    found = list(check_strings("src/x.py", tree, RULES))
    assert [(one.line, one.word) for one in found] == [(4, "nobody"), (6, "vouches")]


def test_a_banned_word_on_a_page_is_found_with_its_line() -> None:
    (found,) = check_page("docs/x.md", "fine\nby another road", RULES)
    assert (found.line, found.word) == (2, "road")


@pytest.mark.parametrize(
    ("text", "is_odd"), [("What it is.", True), ("Whatever.", False), ("Read it.", False)]
)
def test_a_docstring_that_opens_with_a_question_word_is_odd(text: str, is_odd: bool) -> None:
    ((_, found),) = docstrings(ast.parse(f'"""{text}"""'))
    assert bool(RULES.openings.match(found)) is is_odd
