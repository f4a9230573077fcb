"""Standard output and standard error; colour and patient identifiers appear on a terminal alone."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: BaseException | str) -> None:
    """Print an error message."""
    err.print("[red]quarry:[/red] ", end="")
    err.print(str(error), markup=False)
