"""The frame of a page: style sheet, scripts, and the policy that lets a browser load nothing else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from dicom_quarry.reporting.html.markup import Markup, element, escape, join


@cache
def read_asset(name: str) -> str:
    """Return the text of a file next to this module, such as ``style.css``."""
    return (files("dicom_quarry.reporting.html") / name).read_text(encoding="utf-8")


def style_sheet() -> str:
    """Return the one style sheet; everything in it applies to elements in one of the class ``quarry``."""
    return read_asset("style.css")


def content_hash(text: str) -> str:
    """Return the source expression of an inline style or script, for a Content-Security-Policy (CSP 3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def offline_policy(styles: list[str], scripts: list[str]) -> str:
    """Return a Content-Security-Policy for a page in one file: only these styles and scripts, no request."""
    allowed = [
        f"{directive} {' '.join(map(content_hash, texts))}"
        for directive, texts in (("style-src", styles), ("script-src", scripts))
        if texts
    ]
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])


def make_page(title: str, content: Markup, *, scripts: list[str], styles: list[str] | None = None) -> str:
    """Return a page in one file, which a browser shows without a network."""
    sheets = [style_sheet(), *(styles or [])]
    policy = offline_policy(sheets, scripts)
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup('<meta name="referrer" content="no-referrer">'),
        element("title", title),
        *(element("style", Markup(sheet)) for sheet in sheets),
    ]
    body = element("body", content, *(element("script", Markup(one)) for one in scripts), class_="quarry")
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{join(head)}\n</head>\n{body}\n</html>\n'
