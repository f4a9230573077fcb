"""Read README.md and docs/*.md: commands to type, files to write, commands mentioned.

A comment before a block, ``<!-- test: WORD -->``, names an event of the test. A name with a dot is the file
that the next block is written to, ``exit-N`` the exit code of the next command, ``until-stopped`` a command
that runs until Ctrl-C. Any other word is the scene's method ``on_WORD``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Blocks that are typed into a terminal; without prompts, every line of the last three is a command.
_TYPED = ("console", "sh", "bash", "shell")
_FENCED = re.compile(
    r"<!-- test: (?P<event>\S+) -->|^```(?P<kind>\w*)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE
)
_SPAN = re.compile(r"`(quarry [^`]+)`")


@dataclass(frozen=True, slots=True)
class Part:
    """A command with the lines that it shows, a file, a program, or an event."""

    kind: str
    text: str
    lines: tuple[str, ...] = ()


def parts(page: Path) -> Iterator[Part]:
    """Return the parts of a page from top to bottom."""
    for found in _FENCED.finditer(page.read_text(encoding="utf-8")):
        if found["event"]:
            yield Part("event", found["event"])
        elif found["kind"] in _TYPED:
            yield from _commands(found["body"], prompted=found["kind"] == "console")
        else:
            yield Part(found["kind"] or "text", found["body"])


def _commands(body: str, *, prompted: bool) -> Iterator[Part]:
    """Return each command with the output below it; a backslash at the end of a line continues it."""
    command, shown = "", list[str]()
    for line in re.sub(r"\s*\\\n\s*", " ", body).splitlines():
        if prompted and not line.startswith("$ "):
            shown.append(line)
            continue
        if command:
            yield Part("command", command, tuple(shown))
        command, shown = line.removeprefix("$ ").strip(), []
        command = "" if command.startswith("#") else command
    if command:
        yield Part("command", command, tuple(shown))


def mentioned(page: Path) -> list[str]:
    """Return the commands in running text and in tables, often shortened: `quarry stop --now`."""
    return [" ".join(span.split()) for span in _SPAN.findall(page.read_text(encoding="utf-8"))]


def commands_in_blocks(page: Path, names: set[str]) -> list[str]:
    """Return the lines with a command in blocks that are not typed: units, scripts, configuration."""
    command = re.compile(rf"(?<!`)\bquarry ({'|'.join(sorted(names))})\b")
    blocks = [part.text for part in parts(page) if part.kind not in ("command", "event", "python", "mermaid")]
    return [line.strip() for block in blocks for line in block.splitlines() if command.search(line)]
