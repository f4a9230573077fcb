"""Standard output and standard error; colour and patient identifiers appear on a terminal alone.

All text goes through :func:`dicom_quarry.api.make_visible`: tables, reasons and names come from outside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text


class SafeConsole(Console):
    """A console that shows text as it is: no markup, no emoji codes, and visible control characters.

    Colours come from :class:`rich.text.Text` and styles alone.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a table, a live display or a text, made visible."""
        # Imported late: quarry --version shows its number without the library.
        from dicom_quarry.api import make_visible

        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=make_visible(segment.text))


out = SafeConsole()
err = SafeConsole(stderr=True)


def write_line(text: str) -> None:
    """Write a plain line to standard output at once, whether that is a terminal or not."""
    from dicom_quarry.api import make_visible

    print(make_visible(text), flush=True)


def fail(error: BaseException | str) -> None:
    """Print an error message."""
    err.print(Text("quarry: ", "red"), Text(str(error)), sep="", style=None)
