"""Where commands write: colour and identifiers on a terminal alone."""

from __future__ import annotations

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(error: BaseException | str) -> None:
    """Say what is wrong."""
    err.print("[red]quarry:[/red] ", end="")
    err.print(str(error), markup=False)
