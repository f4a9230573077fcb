"""The one way to put a value into HTML or SVG, and tables of values."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from dicom_quarry.system.text_safety import escape_text

#: Characters of a value that a page shows; longer ones are cut, with a mark.
MAX_VALUE = 2000


class Markup(str):
    """Text that is HTML already, so that it is not escaped again."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return a value as HTML text, for an element or a quoted attribute; :class:`Markup` stays as it is.

    Control and formatting characters are shown by their codes, so that no text changes its direction, or
    ends a line.
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(escape_text(str(value), limit=MAX_VALUE), quote=True))


def join(parts: Iterable[str]) -> Markup:
    """Join parts, each of which is escaped unless it is HTML already."""
    return Markup("".join(map(escape, parts)))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element; a value of ``attributes`` that is None is left out, ``class_`` is ``class``.

    Underscores in the names of attributes are hyphens: ``aria_label`` is ``aria-label``.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{''.join(map(escape, content))}</{name}>")


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    numeric: Sequence[int] = (),
    kind: str = "",
) -> Markup:
    """Return a table whose first column names each row; the columns ``numeric`` are aligned to the right."""

    def cell(at: int, value: object) -> Markup:
        name, scope = ("th", "row") if at == 0 else ("td", None)
        return element(name, value, scope=scope, class_="n" if at in numeric else None)

    head = [
        element("th", one, scope="col", class_="n" if at in numeric else None)
        for at, one in enumerate(header)
    ]
    body = [element("tr", *(cell(at, value) for at, value in enumerate(row))) for row in rows]
    captions = [element("caption", caption)] if caption else []
    parts = (*captions, element("thead", element("tr", *head)), element("tbody", *body))
    # A region that scrolls has to be reached by keyboard.
    return element(
        "div",
        element("table", *parts),
        class_=f"scroll {kind}".strip(),
        tabindex=0,
        role="group",
        aria_label=caption or "Table",
    )


def tiles(entries: Iterable[tuple[str, str, str]]) -> Markup:
    """Return large numbers side by side, each with its name and a remark, which may be empty."""
    parts = (
        element(
            "div",
            element("dt", name),
            element("dd", value, *([element("small", remark)] if remark else [])),
        )
        for name, value, remark in entries
    )
    return element("dl", *parts, class_="tiles")
