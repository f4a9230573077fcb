"""Figures of a long benchmark, each with its goal if it has one, and their section in a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Figure:
    """``met`` is None where there is no goal."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """The figures of one part of a bench, under its title."""

    name: str
    title: str
    figures: Sequence[Figure]

    @property
    def met(self) -> bool:
        return all(figure.met is not False for figure in self.figures)

    def lines(self) -> list[str]:
        """For a terminal."""
        verdict = {None: "", True: "met", False: "MISSED"}
        table = [
            f"  {one.what:52} {one.found:>34}  {one.goal:26} {verdict[one.met]}".rstrip()
            for one in self.figures
        ]
        return [self.title, *table]

    def markdown(self) -> str:
        verdict = {None: "", True: " (met)", False: " (**missed**)"}
        table = [f"| {one.what} | {one.found} | {one.goal}{verdict[one.met]} |" for one in self.figures]
        return "\n".join([f"### {self.title}", "", "| | found | goal |", "|---|---|---|", *table])


class Section(Protocol):
    """A part of a page with a name."""

    @property
    def name(self) -> str: ...

    def markdown(self) -> str: ...


def keep(part: Section, page: Path, heading: str, introduction: str) -> None:
    """Put a part into its section of a page, in place of the former one; all else stays."""
    start, end = f"<!-- soak: {part.name} -->", f"<!-- soak: end of {part.name} -->"
    block = f"{start}\n{part.markdown()}\n{end}"
    text = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    if heading not in text:
        text = f"{text.rstrip()}\n\n{heading}\n\n{introduction}\n"
    if start in text:
        before, _, rest = text.partition(start)
        text = f"{before}{block}{rest.partition(end)[2]}"
    else:
        # At the end of the section, which need not be the end of the page.
        before, _, after = text.partition(heading)
        mine, next_heading, rest = after.partition("\n## ")
        text = f"{before}{heading}{mine.rstrip()}\n\n{block}\n{next_heading}{rest}"
    page.write_text(text, encoding="utf-8")


def at_most(what: str, found: float, goal: float, unit: str, digits: int = 0) -> Figure:
    """A figure that is to stay under its goal."""
    return Figure(
        what, f"{found:,.{digits}f} {unit}", f"at most {goal:,.{digits}f} {unit}", met=found <= goal
    )
