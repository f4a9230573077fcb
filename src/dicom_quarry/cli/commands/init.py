"""``quarry init``: write the first quarry.toml, from prompts at a terminal or from Niffler's files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dicom_quarry import api
from dicom_quarry.api import DEFAULT_LOCAL, FILE_NAME, ScaffoldOptions
from dicom_quarry.cli.console import out
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.model import AE

T = TypeVar("T")


def init(
    from_niffler: Annotated[
        Path | None,
        typer.Option(help="Convert a Niffler config.json, and the system.json that it names."),
    ] = None,
) -> None:
    """Write a quarry.toml with comments into this folder.

    At a terminal it prompts for the archive, your receiver, the output folder and the hours.

    Examples:
      quarry init
      quarry init --from-niffler config.json
      quarry init && quarry check
    """
    path = Path(FILE_NAME)
    if path.exists():
        raise InputError(f"{path} exists already: edit it, or move it elsewhere first")
    if from_niffler is not None:
        answers = _convert_niffler(from_niffler)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        answers = _prompt_all()
    else:
        answers = ScaffoldOptions()
    with path.open("x", encoding="utf-8") as file:
        file.write(api.render_config(answers))
    next_step = (
        "Try it: quarry check --from main"
        if answers.archive
        else "Fill in the archive, then run: quarry check"
    )
    out.print(f"{path}: written. {next_step}")


def _convert_niffler(path: Path) -> ScaffoldOptions:
    conversion = api.convert_niffler_config(path)
    out.print(f"cohort: {conversion.cohort}")
    if conversion.is_plan:
        out.print("This job only queried (CFIND). The command for that is: quarry plan")
    for note in conversion.options.notes:
        out.print(f"note: {note}")
    return conversion.options


def _prompt_all() -> ScaffoldOptions:
    return ScaffoldOptions(
        archive=str(_prompt("Archive (AET@HOST:PORT)", AE.parse_remote)),
        local=str(_prompt("Our receiver (AET:PORT)", AE.parse_local, DEFAULT_LOCAL)),
        to=_prompt("Output folder", str, "out"),
        window=_prompt(
            "Hours in which the archive may be queried (such as 19:00-07:00), or none", _parse_window
        ),
    )


def _parse_window(text: str) -> str | None:
    """Read a time window. An empty answer is refused: no window must be meant, so it is typed as none."""
    if text.strip().lower() == "none":
        return None
    try:
        api.parse_schedule(text, UTC)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return text


def _prompt(question: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Repeat the question until ``parse`` takes the answer."""
    while True:
        try:
            return parse(typer.prompt(question, default=default))
        except ConfigError as error:
            out.print(str(error), style="red")
