"""Text from outside made safe to show: on a terminal, in a message, in a log line."""

from __future__ import annotations


def escape_text(text: str, limit: int = 60) -> str:
    """Return the text with escapes in place of control characters, cut after ``limit`` characters."""
    short = text if len(text) <= limit else f"{text[:limit]}…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else _escape_char(char) for char in short)


def make_visible(text: str) -> str:
    """Return text for a terminal: lines and tabs stay, other characters without a glyph become escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _LAYOUT else _escape_char(char) for char in text)


#: Lines, tabs, and a space that does not break a line.
_LAYOUT = "\n\t\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"


def _escape_char(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
