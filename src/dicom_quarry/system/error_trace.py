"""Traces of errors without their texts, which may name a patient. Reads no file and imports nothing."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import PurePath


def format_trace(error: BaseException) -> str:
    """Return the trace of an error and its causes; their texts are left out, as they may name a patient."""
    lines = []
    for one in _chain(error):
        lines.append(f"{type(one).__module__}.{type(one).__qualname__}")
        lines += [
            f"  {frame.f_code.co_filename}, line {number}, in {frame.f_code.co_name}"
            for frame, number in traceback.walk_tb(one.__traceback__)
        ]
    return "\n".join(lines)


def describe_place(error: BaseException) -> str:
    """Return the kind of an error and the place where it was raised, such as ``KeyError in a.py, line 3``."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return type(error).__name__
    frame, number = frames[-1]
    return f"{type(error).__name__} in {PurePath(frame.f_code.co_filename).name}, line {number}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__
