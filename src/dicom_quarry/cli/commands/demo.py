"""``quarry demo``: an archive with synthetic studies, and three extractions from it."""

from __future__ import annotations

import select
import shutil
import signal
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.api import RunningDemo
from dicom_quarry.cli import options
from dicom_quarry.cli.console import out
from dicom_quarry.cli.display.run_job import run_job

#: The ports of ``--serve``, unless they are in use: always the same, so that they can be typed from a page.
_ARCHIVE_PORT, _LOCAL_PORT = 11104, 11112

#: Files that are named after an extraction.
_MAX_SHOWN = 3


class _Stop(Exception):
    """Ctrl-C or SIGTERM."""


def demo(
    to: options.ToWithDefault = Path("demo"),
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Run the archive until Ctrl-C, and print commands to type elsewhere."),
    ] = False,
    dicomweb: Annotated[
        bool, typer.Option("--dicomweb", help="Query and fetch over DICOMweb, without a receiver.")
    ] = False,
) -> None:
    """Try Quarry with a synthetic archive on this computer.

    Extracts three cohorts from it. The second one is complete; the last one has exceptions, which are
    explained.

    Examples:
      quarry demo
      quarry demo --to demo/ --dicomweb
      quarry demo --serve
    """
    ports = {"archive_port": _ARCHIVE_PORT, "local_port": _LOCAL_PORT} if serve else {}
    with api.run_demo(to, **ports) as running:
        out.print(
            f"Demo archive: {running.archive} and {running.web_url}, {running.studies} synthetic studies"
        )
        flags = {"from": running.web_url} if dicomweb else {"from": running.archive, "as": running.local}
        given = " ".join(f"--{name} {value}" for name, value in flags.items())
        if serve:
            _show_tutorial(given)
        for cohort in running.cohorts:
            folder = to / (f"{cohort.stem}-dicomweb" if dicomweb else cohort.stem)
            command = f"quarry extract {cohort} {given} --to {folder}"
            if serve:
                out.print(f"  {command}")
            else:
                out.print(f"\n$ {command}", style="bold")
                _extract(cohort, folder, flags)
        if serve:
            _serve(running)
        else:
            _show_next_steps(to, folder)


def _show_tutorial(given: str) -> None:
    out.print("\nOpen another terminal. Begin with the first step of docs/first-extraction.md:")
    out.print(f"  quarry check {given} --accession A1001")
    out.print("Or extract one of these tables:")


def _extract(cohort: Path, folder: Path, flags: Mapping[str, str]) -> None:
    out.print(cohort.read_text(), end="")
    code = run_job(api.load_settings(None, {**flags, "to": folder}), lambda job: job.extract(cohort))
    out.print(f"exit code {code}; some of the files in {folder}:")
    for path in islice(sorted(folder.rglob("*.dcm")), _MAX_SHOWN):
        out.print(f"  {path}")


def _show_next_steps(to: Path, folder: Path) -> None:
    """Show how to call quarry from here, and commands that need no archive; ``folder`` has exceptions."""
    out.print("\nThe demo archive has stopped. The folders stay: look into them, or type", style="bold")
    program = Path(sys.argv[0]).absolute()
    if program.name == "quarry" and shutil.which("quarry") != str(program):
        out.print(
            f'  export PATH="{program.parent}:$PATH"      (once in this terminal, for the command quarry)'
        )
    row = next((one.row for one in api.report(folder).rows() if one.outcome.next_step), 1)
    out.print(f"  quarry explain {folder} --row {row}")
    out.print(f"  quarry report {folder} --xlsx")
    out.print(f"  quarry verify {folder}")
    out.print(f"  quarry demo --serve --to {to}")


def _serve(running: RunningDemo) -> None:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        raise _Stop

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        if sys.stdin.isatty():
            out.print("\nPress Enter to archive the missing study A1003. Press Ctrl-C to stop the archive.")
            select.select([sys.stdin], [], [])
            running.add_late_study()
            out.print("Study A1003 is in the archive now. Press Ctrl-C to stop the archive.")
        else:
            out.print("\nPress Ctrl-C to stop the archive.")
        while True:
            signal.pause()
    except _Stop:
        return
