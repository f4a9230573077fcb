"""Tests of what a scenario of one run cannot show: several runs, several archives, real ones, signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Shown:
    """A fault, what Quarry does, and the test that shows it."""

    item: int
    fault: str
    does: str
    test: str


SHOWN: list[Shown] = []


def shows(item: int, fault: str, does: str) -> Callable[[Test], Test]:
    """Put a test into docs/faults.md."""

    def mark(test: Test) -> Test:
        module = test.__module__.rpartition(".")[2]
        SHOWN.append(Shown(item, fault, does, f"{module}.py::{test.__name__}"))
        return test

    return mark
