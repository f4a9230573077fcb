"""The frame of every page: title, trail, notes that concern the whole page, and the live script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.responses import HTMLResponse, Response

from dicom_quarry.api.pages import Markup, element, join
from dicom_quarry.version import __version__
from dicom_quarry.web.context import WebContext

#: The way to a page: titles and addresses of the pages above it.
Trail = Sequence[tuple[str, str]]


def make_page(
    context: WebContext,
    title: str,
    *content: object,
    trail: Trail = (),
    events: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return a page; its parts are updated from the address ``events``, if there is one."""
    notes = []
    if context.with_identifiers:
        text = "With identifiers: this page may name patients. Do not leave it open, and do not share it."
        notes.append(element("p", text, class_="identifiers", role="note"))
    if events:
        notes.append(element("p", class_="connection", id="connection", role="status", hidden="hidden"))
    main = element("main", element("h1", title), *notes, *content, id="main", data_events=events or None)
    head = [
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", f"{title} – Quarry"),
        Markup('<link rel="stylesheet" href="/style.css">'),
        Markup('<link rel="icon" href="data:,">'),
        *([Markup('<script src="/live.js" defer></script>')] if events else []),
    ]
    body = element("body", _header(trail), main, _footer(context), class_="quarry web")
    return HTMLResponse(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>{join(head)}</head>\n{body}\n</html>\n', status
    )


def _header(trail: Trail) -> Markup:
    links = [element("a", name, href=address) for name, address in (("Quarry", "/"), *trail)]
    parts = [element("li", one) for one in links]
    return element("header", element("nav", element("ol", *parts), aria_label="Trail"))


def _footer(context: WebContext) -> Markup:
    way = "" if context.allow_actions else " Read-only: start with --allow-actions for buttons."
    return element("footer", element("p", f"Quarry {__version__}.{way}"))


def live_part(name: str, content: Mapping[str, str]) -> Markup:
    """Return the element of a part that live updates replace."""
    return element("div", Markup(content.get(name, "")), id=name)


def make_refusal(context: WebContext, status: int, sentence: str) -> Response:
    """Return the page for a refused request; it shows nothing about jobs."""
    titles = {
        400: "Bad request",
        401: "No session",
        403: "Refused",
        404: "Not found",
        405: "Not possible here",
    }
    content = [element("p", sentence)]
    if status == 401:
        content.append(
            element(
                "p",
                "Run ",
                element("code", "quarry web"),
                " once more on the computer with the jobs: it prints a new link, also while it runs already. "
                "If you came from a link on another page, ",
                element("a", "open this page again", href="/"),
                ".",
            )
        )
    return make_page(context, titles.get(status, "Error"), *content, status=status)
