"""``quarry check``: what is wrong between here and the archive, and the letter that asks for its repair."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dicom_quarry.cli.console import err, out
from dicom_quarry.config.settings import DEFAULT_LOCAL, FILE_NAME, Limits, Settings, load_settings, read_toml
from dicom_quarry.config.site_policy import SitePolicy, load_site_policy
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.diagnosis.access_request import render_access_request
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, RequestLimits, StepStatus
from dicom_quarry.diagnosis.runner import run_checks
from dicom_quarry.diagnosis.save_profile import save_profile
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.throttle import build_throttle
from dicom_quarry.system.shutdown import Shutdown

_SYMBOLS = {
    StepStatus.GOOD: "[green]✓[/green]",
    StepStatus.NOTE: "[yellow]–[/yellow]",
    StepStatus.BAD: "[red]✗[/red]",
}


def check(
    from_: Annotated[
        str | None,
        typer.Option("--from", help="AET@HOST:PORT, https://HOST/PATH, or a name from quarry.toml."),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", help=f"Our receiver: AET[@IP]:PORT.  [default: {DEFAULT_LOCAL}]"),
    ] = None,
    accession: Annotated[
        str | None,
        typer.Option(help="A study named for testing: it is queried, sent here by each road, then removed."),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Find out how many answers the archive gives at most.")
    ] = False,
    save_settings: Annotated[
        bool, typer.Option("--save", help="Write what was learned of the archive to quarry.toml.")
    ] = False,
    access_request: Annotated[
        Path | None,
        typer.Option("--letter", help="Write the page to send to the PACS team; - is standard output."),
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings.  [default: ./quarry.toml, if it is there]")
    ] = None,
) -> None:
    """Check the connection to an archive, step by step, and say what is wrong and whom to ask.

    Exit codes: 0 all is well; 1 something is wrong, and explained; 2 usage or configuration;
    3 could not start.

    Example:  quarry check --from PACS@10.1.2.3:104 --as QUARRY:11112 --accession 4711
    """
    # However it ends, the receiver and the temporary folder go with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(3))
    # What the receiver would log of senders stands in the steps.
    logging.getLogger("dicom_quarry").addHandler(logging.NullHandler())
    settings = _settings(config_file, from_, as_)
    policy = load_site_policy()
    policy.check_archive(settings.archives[0])
    limits = [settings.archives[0], *policy.limits_for(settings.archives[0]).values()]
    context = CheckContext(settings, _request_limits(settings, policy))
    if access_request is not None and settings.archives[0].address is None:
        raise InputError("the letter is about DIMSE, and this archive is reached over DICOMweb alone")
    # A letter that goes to standard output shall stand there alone.
    console = err if access_request == Path("-") else out
    done = []
    for step in run_checks(context, _require_open_hours(limits), accession=accession or "", probe_cap=probe):
        done.append(step)
        _show_step(console, step)
    if save_settings:
        _save_profile(console, config_file or Path(FILE_NAME), context)
    if access_request is not None:
        _write_access_request(
            access_request, render_access_request(context, limits, socket.gethostname(), done)
        )
    bad = any(step.status is StepStatus.BAD for step in done)
    if bad and access_request is None and settings.archives[0].address is not None:
        console.print("--letter FILE writes the page to send to the PACS team, with what was found")
    if not accession and not bad:
        console.print("not tried without --accession: queries, and whether images arrive here")
    raise typer.Exit(1 if bad else 0)


def _settings(path: Path | None, from_: str | None, as_: str | None) -> Settings:
    """The settings of a job; without a folder to fill, the disk of the current one is looked at."""
    file = path or Path(FILE_NAME)
    in_file = read_toml(file) if path or file.is_file() else {}
    to = None if "to" in in_file else Path()
    settings = load_settings(path, {"from": from_, "as": as_, "to": to})
    if len(settings.archives) > 1:
        raise InputError("check one archive at a time: name it with --from")
    return settings


def _request_limits(settings: Settings, policy: SitePolicy) -> RequestLimits:
    throttle = build_throttle(settings.archives[0], 1, policy, Shutdown(), StatusBoard())
    return RequestLimits(throttle.acquire_query, throttle.acquire_retrieval, throttle.throttle_bytes)


def _require_open_hours(limits: list[Limits]) -> Schedule:
    """The hours in which the archive may be asked; raises StartError outside of them: a check asks, too."""
    hours = Schedule()
    for one in limits:
        hours &= one.schedule
    now = datetime.now(UTC)
    if not hours.is_open(now):
        opens = hours.next_open(now)
        when = f" until {hours.format_time(opens)}" if opens else ""
        raise StartError(f"outside the window: the archive may not be asked{when}")
    return hours


def _show_step(console: Console, step: CheckStep) -> None:
    console.print(f"{_SYMBOLS[step.status]} {escape(f'{step.name}: {step.message}')}")
    if step.remedy:
        console.print(f"    {step.remedy}", markup=False)


def _save_profile(console: Console, path: Path, context: CheckContext) -> None:
    changes = save_profile(path, context)
    console.print(f"{path}: written" if changes else f"{path}: nothing new", markup=False)
    for line in changes:
        console.print(f"    {line}", markup=False)


def _write_access_request(path: Path, text: str) -> None:
    if path == Path("-"):
        print(text, end="")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InputError(
            f"{path} is there already, and may have been filled in: name another file"
        ) from error
    out.print(f"letter: {path}; fill in what stands in brackets", markup=False)
