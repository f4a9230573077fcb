"""Check names and text against tools/words.toml; part of ``make check``."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

#: Largest share of docstrings that may open with a question word.
MAX_SHARE = 0.01

_PART_OF_NAME = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """A banned word and its place: path from the root of the repository, line, text around it."""

    path: str
    line: int
    word: str
    context: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: '{self.word}' in {self.context}"


@dataclass(frozen=True, slots=True)
class Rules:
    """The list of words; ``exceptions`` are pairs of path and word."""

    names: frozenset[str]
    text: re.Pattern[str]
    openings: re.Pattern[str]
    exceptions: frozenset[tuple[str, str]]

    @classmethod
    def load(cls, path: Path = ROOT / "tools" / "words.toml") -> Rules:
        """Read the list."""
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return cls(
            names=frozenset(data["names"]),
            text=re.compile(rf"\b({'|'.join(map(re.escape, data['text']))})\b", re.IGNORECASE),
            openings=re.compile(rf"({'|'.join(data['openings'])})\b"),
            exceptions=frozenset((one["path"], one["word"]) for one in data.get("exceptions", [])),
        )


def check_names(path: str, tree: ast.Module, rules: Rules) -> Iterator[Finding]:
    """Find banned words in the names that a module defines, and in its own."""
    names = [(1, part) for part in Path(path).with_suffix("").parts]
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.append((node.lineno, node.name))
            case ast.arg():
                names.append((node.lineno, node.arg))
            case ast.Name(ctx=ast.Store()):
                names.append((node.lineno, node.id))
            case ast.Attribute(ctx=ast.Store()):
                names.append((node.lineno, node.attr))
    for line, name in names:
        for part in _PART_OF_NAME.findall(name):
            if part.lower() in rules.names:
                yield Finding(path, line, part.lower(), f"the name {name}")


def check_strings(path: str, tree: ast.Module, rules: Rules) -> Iterator[Finding]:
    """Find banned words in the strings of a module, docstrings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for match in rules.text.finditer(node.value):
                start = node.lineno + node.value.count("\n", 0, match.start())
                around = node.value[max(0, match.start() - 30) : match.end() + 30].replace("\n", " ")
                yield Finding(path, start, match[1].lower(), f"the text '…{around}…'")


def check_page(path: str, text: str, rules: Rules) -> Iterator[Finding]:
    """Find banned words on a page of the documents."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in rules.text.finditer(line):
            yield Finding(path, number, match[1].lower(), f"the line '{line.strip()[:80]}'")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def check_all(rules: Rules) -> list[str]:
    """All findings in the product and its documents, as lines to print."""
    findings: list[Finding] = []
    odd: list[str] = []
    total = 0
    for file in sorted(SOURCE.rglob("*.py")):
        path, tree = str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))
        findings += [*check_names(path, tree, rules), *check_strings(path, tree, rules)]
        for line, text in docstrings(tree):
            total += 1
            if rules.openings.match(text):
                odd.append(f"{path}:{line}: a docstring opens with '{text.split()[0]}'")
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]:
        findings += check_page(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"), rules)
    lines = [str(one) for one in findings if (one.path, one.word) not in rules.exceptions]
    unused = rules.exceptions - {(one.path, one.word) for one in findings}
    lines += [
        f"tools/words.toml: no '{word}' in {path}: remove the exception" for path, word in sorted(unused)
    ]
    return lines + (odd if len(odd) > MAX_SHARE * total else [])


def main() -> int:
    """Print the findings; 1 if there are any."""
    lines = check_all(Rules.load())
    print("\n".join(lines) or "plain English: nothing found")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
