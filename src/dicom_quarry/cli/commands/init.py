"""``quarry init``: the first quarry.toml, asked for at a terminal or taken over from the former extractor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.config import niffler, time_window
from dicom_quarry.config.scaffold import ScaffoldOptions, render_config
from dicom_quarry.config.settings import DEFAULT_FILEPATH, DEFAULT_LOCAL, FILE_NAME
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.model import AE

T = TypeVar("T")


def init(
    from_niffler: Annotated[
        Path | None,
        typer.Option(help="Take over the former extractor's config.json, and the system.json that it names."),
    ] = None,
) -> None:
    """Write a quarry.toml with comments into the current folder, asking what it needs at a terminal.

    Example:  quarry init
    """
    path = Path(FILE_NAME)
    if path.exists():
        raise InputError(f"{path} is there already: change it, or move it out of the way")
    if from_niffler is not None:
        start = _convert_niffler(niffler.load_niffler_config(from_niffler))
    elif sys.stdin.isatty() and sys.stdout.isatty():
        start = _prompt_all()
    else:
        start = ScaffoldOptions()
    with path.open("x", encoding="utf-8") as file:
        file.write(render_config(start))
    next_step = (
        "try it with quarry check --from main" if start.archive else "fill in the archive, then quarry check"
    )
    out.print(f"{path}: written; {next_step}", markup=False)


def _convert_niffler(found: niffler.NifflerConfig) -> ScaffoldOptions:
    columns = ", ".join(
        f"column {index + 1} is {keyword}" for index, keyword in sorted(found.columns.items())
    )
    out.print(f"cohort: {found.cohort_file}; {columns}", markup=False)
    if found.plan_mode:
        out.print(
            "it only asked what there is (CFIND), and fetched nothing: that is quarry plan", markup=False
        )
    for note in found.notes:
        out.print(f"note: {note}", markup=False)
    flags = found.flags
    return ScaffoldOptions(
        archive=flags["from"],
        local=flags["as"],
        to=flags["to"],
        window=found.window,
        filepath=flags.get("filepath", DEFAULT_FILEPATH),
        mail_to=found.mail_to,
        notes=found.notes,
    )


def _prompt_all() -> ScaffoldOptions:
    return ScaffoldOptions(
        archive=str(_prompt("Archive (AET@HOST:PORT)", AE.parse_remote)),
        local=str(_prompt("Our receiver (AET:PORT)", AE.parse_local, DEFAULT_LOCAL)),
        to=_prompt("Folder to fill", str, "out"),
        window=_prompt(
            "Hours in which the archive may be asked (such as 19:00-07:00), or none", _parse_window
        ),
    )


def _parse_window(text: str) -> str | None:
    """A window, or an explicit none: whoever has not thought of it shall."""
    if text.strip().lower() == "none":
        return None
    try:
        time_window.parse_schedule(text, UTC)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return text


def _prompt(question: str, parse: Callable[[str], T], default: str | None = None) -> T:
    """Ask until the answer can be used."""
    while True:
        try:
            return parse(typer.prompt(question, default=default))
        except ConfigError as error:
            out.print(str(error), style="red", markup=False)
