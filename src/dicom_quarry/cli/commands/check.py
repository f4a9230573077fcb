"""``quarry check``: check the connection to an archive, and write the letter that requests access."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from dicom_quarry.api import CheckStep, ConnectionCheck, StepStatus
from dicom_quarry.cli import cohort_options, options
from dicom_quarry.cli.console import err, out
from dicom_quarry.cli.output_file import check_output_file
from dicom_quarry.errors import InputError

_SYMBOLS = {
    StepStatus.GOOD: Text("✓", "green"),
    StepStatus.NOTE: Text("–", "yellow"),
    StepStatus.BAD: Text("✗", "red"),
}
_STANDARD_OUTPUT = Path("-")


def check(
    from_: cohort_options.From = None,
    as_: cohort_options.As = None,
    accession: Annotated[
        str | None,
        typer.Option(help="A study for testing: it is queried, sent here by each method, then deleted."),
    ] = None,
    patient_id: Annotated[
        str | None, typer.Option(help="The patient of that study, for archives with Patient Root alone.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Find out the most query results that the archive returns.")
    ] = False,
    save_settings: Annotated[bool, typer.Option("--save", help="Write the findings to quarry.toml.")] = False,
    access_request: Annotated[
        Path | None,
        typer.Option("--letter", help="Write the page to send to the PACS team; - is standard output."),
    ] = None,
    config_file: options.ConfigFile = None,
    trust_owner: options.TrustOwner = False,
) -> None:
    """Check the connection to an archive, step by step.

    Shows what is wrong, what to do about it, and which team can help.

    Exit codes: 0 all is well; 1 something is wrong, and explained; 2 usage or configuration;
    3 could not start.

    Examples:
      quarry check --from PACS@10.1.2.3:104 --as QUARRY:11112
      quarry check --from PACS@10.1.2.3:104 --as QUARRY:11112 --accession A1001 --save
      quarry check --from PACS@10.1.2.3:104 --as QUARRY:11112 --letter letter.md
    """
    # A signal raises SystemExit, so that the receiver is stopped and the temporary folder deleted.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(3))
    # The steps report what the receiver would log of senders.
    logging.getLogger("dicom_quarry").addHandler(logging.NullHandler())
    connection = ConnectionCheck(config_file, archive=from_, local=as_, trust_owner=trust_owner)
    if access_request is not None and access_request != _STANDARD_OUTPUT:
        _check_letter(access_request)
    # A letter on standard output must be the only text there.
    console = err if access_request == _STANDARD_OUTPUT else out
    if access_request is not None and connection.closed_reason and not (accession or probe or save_settings):
        console.print(f"{connection.closed_reason}. Nothing was sent to it, so the page has no findings")
        _write_access_request(access_request, connection.access_request())
        return
    for step in connection.run(accession=accession or "", patient_id=patient_id or "", probe_cap=probe):
        _show_step(console, step)
    if save_settings:
        _show_saved(console, connection.settings_file, connection.save())
    if access_request is not None:
        _write_access_request(access_request, connection.access_request())
    if connection.failed and access_request is None:
        console.print("To write these findings as a page for the PACS team, add: --letter FILE")
    if not connection.failed and connection.not_shown:
        console.print(
            f"Not yet shown: {connection.not_shown}. To show it with one study, add: --accession NUMBER"
        )
    raise typer.Exit(1 if connection.failed else 0)


def _check_letter(path: Path) -> None:
    """Raise InputError, before the archive is queried, if the letter cannot be written."""
    check_output_file(path, "letter.md")
    if path.exists():
        raise InputError(f"{path} exists already, and may have been filled in: name another file")


def _show_step(console: Console, step: CheckStep) -> None:
    console.print(_SYMBOLS[step.status], f"{step.name}: {step.message}")
    if step.remedy:
        console.print(f"    {step.remedy}")


def _show_saved(console: Console, path: Path, changes: list[str]) -> None:
    console.print(f"{path}: written" if changes else f"{path}: nothing new")
    for line in changes:
        console.print(f"    {line}")


def _write_access_request(path: Path, text: str) -> None:
    if path == _STANDARD_OUTPUT:
        print(text, end="")
        return
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    out.print(f"letter: {path}. Fill in the parts in brackets")
