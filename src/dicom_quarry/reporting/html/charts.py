"""Charts as SVG text, for report.html, the web pages and notebooks. Pure.

Every length across is a share of the width, so that a chart fills its place and its text keeps its size.
Colours come from the style sheet. A chart names its content for screen readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.html.markup import Markup, element
from dicom_quarry.reporting.job_view import FlowStep

#: Parts of the flow diagram: main column, branches; heights in pixels.
_MAIN_WIDTH, _BRANCH_LEFT, _MIDDLE = 40, 46, 20
_BOX_HEIGHT, _LINE, _GAP = 46, 20, 9


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart; ``text`` is its value in words, ``kind`` a class of the style sheet."""

    label: str
    value: float
    text: str
    kind: str = ""


def flow_diagram(steps: Sequence[FlowStep]) -> Markup:
    """Draw the flow of the rows in the manner of a CONSORT diagram."""
    parts: list[Markup] = []
    top = 1
    for at, step in enumerate(steps):
        last = at == len(steps) - 1
        parts.append(_main_box(step, top, is_last=last))
        if last:
            continue
        below = top + _BOX_HEIGHT
        height = _LINE * len(step.leaving) + 10
        middle, following = below + _GAP + height / 2, below + 2 * _GAP + height
        parts += [
            _line(f"{_MIDDLE}%", below, f"{_MIDDLE}%", following - 1),
            _arrow_head(f"{_MIDDLE}%", following, "M-4-7L4-7L0 0z"),
            _line(f"{_MIDDLE}%", middle, f"{_BRANCH_LEFT}%", middle),
            _arrow_head(f"{_BRANCH_LEFT}%", middle, "M-7-4L-7 4L0 0z"),
            *_branch_box(step, below + _GAP, height),
        ]
        top = following
    label = "; ".join(map(_describe_step, steps))
    return _svg(top + _BOX_HEIGHT + 1, f"Flow of the rows. {label}.", parts, "flow")


def _describe_step(step: FlowStep) -> str:
    leaving = ", ".join(f"{name} {number:,}" for name, number in step.leaving)
    return f"{step.label}: {step.rows:,}" + (f", of which leave: {leaving}" if leaving else "")


def _main_box(step: FlowStep, top: float, *, is_last: bool) -> Markup:
    return Markup(
        _rect(0.2, top, _MAIN_WIDTH, _BOX_HEIGHT, "box last" if is_last else "box")
        + _text(f"{_MIDDLE}%", top + 19, step.label, "middle")
        + _text(f"{_MIDDLE}%", top + 37, f"n = {step.rows:,}", "middle strong")
    )


def _branch_box(step: FlowStep, top: float, height: float) -> list[Markup]:
    is_empty = not any(number for _, number in step.leaving)
    width = 99.8 - _BRANCH_LEFT
    parts = [_rect(_BRANCH_LEFT, top, width, height, "branch none" if is_empty else "branch")]
    for at, (name, number) in enumerate(step.leaving):
        baseline = top + 19 + at * _LINE
        kind = "" if number else "faint"
        parts.append(_text(f"{_BRANCH_LEFT + 2.5}%", baseline, name, kind))
        parts.append(_text("97.5%", baseline, f"{number:,}", f"end strong {kind}".strip()))
    return parts


def bar_chart(bars: Sequence[Bar], title: str) -> Markup:
    """Draw horizontal bars, one below the other, each below its label and its value."""
    largest = max((one.value for one in bars), default=0) or 1
    parts: list[Markup] = []
    for at, one in enumerate(bars):
        top = at * 38
        width = max(one.value / largest * 100, 0.4 if one.value else 0)
        parts += [
            _text("0", top + 13, one.label, ""),
            _text("100%", top + 13, one.text, "value end"),
            _rect(0, top + 19, 100, 9, "track"),
            _rect(0, top + 19, width, 9, f"bar {one.kind}".strip()),
        ]
    label = f"{title}. " + "; ".join(f"{one.label}: {one.text}" for one in bars)
    return _svg(max(1, len(bars) * 38 - 8), label, parts, "bars")


_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Equal slices of time; ``is_open`` is True while the archive may be queried, None: always."""

    start: datetime
    step: timedelta
    slices: int
    is_open: Callable[[datetime], bool] | None = None

    def time_of(self, at: int) -> datetime:
        """Return the beginning of a slice."""
        return self.start + at * self.step

    def label(self, at: int) -> str:
        """Return a label that is as short as the whole axis allows."""
        span, time = self.slices * self.step, self.time_of(at)
        if span < timedelta(minutes=10):
            return f"{time:%H:%M:%S}"
        if span < timedelta(hours=20):
            return f"{time:%H:%M}"
        return f"{time:%d %b %H:%M}" if span < timedelta(days=6) else f"{time:%d %b}"

    @property
    def step_name(self) -> str:
        """The length of a slice in words, such as ``30 minutes``."""
        seconds = round(self.step.total_seconds())
        unit, size = next(one for one in _UNITS if seconds % one[1] == 0)
        return unit if seconds == size else format_count(seconds // size, unit)


def time_chart(
    axis: TimeAxis, values: Sequence[float], format_value: Callable[[float], str], title: str, kind: str = ""
) -> Markup:
    """Draw a value over time as columns; the times at which the archive may be queried are shaded."""
    largest, height, top = max(values, default=0) or 1, 110, 22
    width = 100 / max(1, axis.slices)
    parts = [
        _rect(first * width, top, (after - first) * width, height, "window", hint="the archive's time window")
        for first, after in _open_spans(axis)
    ]
    parts.append(_line("0", top, "100%", top, "grid"))
    parts.append(_text("0", top - 6, f"{format_value(largest)} at most", "faint"))
    for at, value in enumerate(values):
        if value:
            tall = max(1.0, value / largest * height)
            hint = f"{axis.label(at)}: {format_value(value)}"
            parts.append(
                _rect(
                    at * width + width * 0.06,
                    top + height - tall,
                    width * 0.88,
                    tall,
                    f"bar {kind}".strip(),
                    hint=hint,
                )
            )
    parts.append(_line("0", top + height, "100%", top + height, "axis"))
    for at, anchor in ((0, "start"), (axis.slices // 2, "middle"), (axis.slices, "end")):
        parts.append(
            _text(f"{at * width:.2f}%", top + height + 17, axis.label(at), f"faint {anchor}".strip())
        )
    return _svg(height + top + 24, f"{title}: {format_value(largest)} at most", parts, "time")


def _open_spans(axis: TimeAxis) -> list[tuple[int, int]]:
    """Return the spans of slices at which the archive may be queried; none if that is always."""
    if axis.is_open is None:
        return []
    spans = []
    is_open = axis.is_open
    for opened, group in groupby(
        range(axis.slices), key=lambda at: is_open(axis.time_of(at) + axis.step / 2)
    ):
        found = list(group)
        if opened:
            spans.append((found[0], found[-1] + 1))
    return spans


def _svg(height: float, label: str, parts: Sequence[Markup], kind: str) -> Markup:
    return element(
        "svg",
        *parts,
        class_=f"chart {kind}",
        width="100%",
        height=f"{height:g}",
        role="img",
        aria_label=label,
    )


def _rect(left: float, top: float, width: float, height: float, kind: str, *, hint: str = "") -> Markup:
    place = {"x": f"{left:.4g}%", "y": f"{top:.4g}", "width": f"{width:.4g}%", "height": f"{height:.4g}"}
    return element("rect", *([element("title", hint)] if hint else []), class_=kind, **place)


def _text(left: str, baseline: float, text: str, kind: str) -> Markup:
    return element("text", text, x=left, y=f"{baseline:g}", class_=kind or None)


def _line(x1: str, y1: float, x2: str, y2: float, kind: str = "edge") -> Markup:
    return element("line", x1=x1, y1=f"{y1:g}", x2=x2, y2=f"{y2:g}", class_=kind)


def _arrow_head(x: str, y: float, path: str) -> Markup:
    # An inner drawing places a path at a share of the width, which a path itself cannot.
    return element(
        "svg", element("path", d=path, class_="head"), x=x, y=f"{y:g}", overflow="visible", width=1, height=1
    )
