"""The tests that the pages name next to their statements exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`(tests/[\w/]+)(\.py)?(?:::(test_\w+))?")
#: Pages whose every statement has a test, and the least number of tests that they name.
PAGES = {"for-pacs-administrators.md": 25, "conformance.md": 25, "security.md": 40}


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_tests_that_a_page_names_exist(name: str) -> None:
    named = _NAMED.findall((ROOT / "docs" / name).read_text(encoding="utf-8"))
    assert len(named) >= PAGES.get(name, 0), "a statement has lost its test"
    for path, suffix, function in named:
        file = ROOT / f"{path}{suffix}"
        assert file.exists(), f"{name}: {path}"
        if function:
            assert f"def {function}(" in file.read_text(encoding="utf-8"), f"{name}: {path}::{function}"
