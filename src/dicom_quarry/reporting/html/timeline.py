"""The timeline of a row: what happened as bars over time, and as a list in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from dicom_quarry.reporting.html.markup import Markup, element
from dicom_quarry.reporting.row_history import HistoryEvent

#: The lanes of the drawing, from above: the kinds of events, and their name.
_LANES = (("query", "Queries"), ("retrieval", "Retrievals"), ("pause", "Pauses"))
_LANE_HEIGHT, _BAR_HEIGHT = 38, 13

#: Least width of a bar, as a share of the drawing.
_LEAST = 0.5


def timeline(events: Sequence[HistoryEvent]) -> Markup:
    """Return the events as bars, and as an ordered list with their times in UTC."""
    items = [
        element(
            "li",
            element("time", _format_time(one.at), datetime=f"{_utc(one.at):%Y-%m-%dT%H:%M:%SZ}"),
            " ",
            element("span", one.text),
            class_=f"{one.kind} bad" if one.is_failure else one.kind,
        )
        for one in events
    ]
    note = element("p", "Times are in UTC.", class_="quiet")
    return Markup(_drawing(events) + note + element("ol", *items, class_="timeline"))


def _drawing(events: Sequence[HistoryEvent]) -> Markup:
    """Return the bars; nothing if all happened at one moment."""
    lanes = [(kind, name) for kind, name in _LANES if any(one.kind == kind for one in events)]
    start = min((one.at for one in events), default=0.0)
    span = max((one.at + one.seconds for one in events), default=0.0) - start
    if not lanes or span <= 0:
        return Markup()
    parts = []
    for at, (kind, name) in enumerate(lanes):
        top = at * _LANE_HEIGHT
        parts.append(element("text", name, x="0", y=top + 14, class_="faint"))
        parts += [_bar(one, start, span, top + 20) for one in events if one.kind == kind]
    bottom = len(lanes) * _LANE_HEIGHT + 4
    parts.append(element("line", x1="0", y1=bottom, x2="100%", y2=bottom, class_="axis"))
    for place, moment, anchor in (("0", start, ""), ("100%", start + span, "end")):
        parts.append(
            element("text", _format_time(moment), x=place, y=bottom + 17, class_=f"faint {anchor}".strip())
        )
    label = "; ".join(f"{name}: {sum(one.kind == kind for one in events)}" for kind, name in lanes)
    size = {"width": "100%", "height": bottom + 24}
    return element("svg", *parts, class_="chart time", role="img", aria_label=f"Over time. {label}", **size)


def _bar(event: HistoryEvent, start: float, span: float, top: int) -> Markup:
    width = max(_LEAST, event.seconds / span * 100)
    left = min((event.at - start) / span * 100, 100 - width)
    hint = element("title", f"{_format_time(event.at)}: {event.text}")
    place = {"x": f"{left:.2f}%", "y": top, "width": f"{width:.2f}%", "height": _BAR_HEIGHT}
    return element("rect", hint, class_="bar bad" if event.is_failure else "bar", rx=2, **place)


def _format_time(at: float) -> str:
    return f"{_utc(at):%Y-%m-%d %H:%M:%S}"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
