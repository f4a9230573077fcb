"""``--detach``: start a job in the background, and show its output until it is running."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import typer

from dicom_quarry import api
from dicom_quarry.api import JobPlace
from dicom_quarry.cli.console import write_line
from dicom_quarry.cli.display.plain import PlainDisplay


def run_in_background(table: Path | None = None) -> None:
    """Start this command again in the background, and exit when its job is running or has ended.

    In the background job itself this does nothing. Raises InputError and StartError.
    """
    if not api.is_background_job():
        raise typer.Exit(api.start_in_background(sys.argv[1:], table) or 0)


class DetachedDisplay(PlainDisplay):
    """Writes to the launcher's terminal until the job is running, then to the job's log."""

    def __init__(self) -> None:
        super().__init__()
        self._launcher = api.Launcher()

    def on_started(self, folder: JobPlace) -> None:
        """Print how to watch and stop the job, and let the launcher end."""
        if not self._launcher.is_waiting:
            return
        job = shlex.quote(folder.label)
        write_line(f"Running in the background (process {os.getpid()}). Log file: {folder.output_log}")
        write_line(f"  quarry status {job}\n  quarry stop {job}")
        self._launcher.release(folder.output_log)
