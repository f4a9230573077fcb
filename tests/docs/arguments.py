"""Parse commands with the command line's own parser, without running them."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer.main

from dicom_quarry.cli.main import app

_QUARRY: Any = typer.main.get_command(app)
#: Every command by its name.
_CONTEXT = _QUARRY.make_context("quarry", [], resilient_parsing=True)
COMMANDS = {name: _QUARRY.get_command(_CONTEXT, name) for name in _QUARRY.list_commands(_CONTEXT)}


def parse(command: str) -> None:
    """Raise the error that the command line would report for these arguments."""
    _, name, *arguments = shlex.split(command, comments=True)
    COMMANDS[name].make_context(name, arguments)


def unknown(mention: str) -> list[str]:
    """Return the unknown options of a shortened command, or its name if that is unknown."""
    name, *words = mention.removeprefix("quarry ").split()
    if name.startswith("-"):
        words, known = [name, *words], _options(_QUARRY)
    elif name.isupper():  # a place for any of them: quarry COMMAND --help
        known = set().union(*map(_options, COMMANDS.values()))
    elif name in COMMANDS:
        known = _options(COMMANDS[name])
    else:
        return [name]
    options = [word for word in words if re.match(r"--?[a-z]", word)]
    return [option for option in options if option.split("=")[0].rstrip("….,;") not in known]


def _options(command: object) -> set[str]:
    parameters, commands = getattr(command, "params", ()), getattr(command, "commands", {})
    known = {"-h", "--help"}.union(*map(_options, commands.values()))
    return known.union(*({*one.opts, *one.secondary_opts} for one in parameters))
