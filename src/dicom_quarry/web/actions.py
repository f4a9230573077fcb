"""The work of the buttons: stop a job, or start it in the background as ``--detach`` does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dicom_quarry import api
from dicom_quarry.api import JobPlace
from dicom_quarry.errors import InputError, QuarryError, StartError

#: Bytes of a command's output that a page shows.
_MAX_OUTPUT = 4000

#: The beginning of an error message on a terminal.
_ERROR = "quarry: "


class Actions:
    """The actions of one server."""

    def __init__(self) -> None:
        self._stopped: set[tuple[Path, int]] = set()

    def run(self, folder: JobPlace, action: str) -> None:
        """Do what a button names; returns once the job was signalled, or runs. Raises QuarryError."""
        if action in ("stop", "cancel"):
            self._stop(folder, cancel=action == "cancel")
        elif action in ("resume", "retry"):
            _start(action, folder)
        else:
            raise InputError(f"there is no action {action}")

    def _stop(self, folder: JobPlace, *, cancel: bool) -> None:
        job = api.find_running_job(folder.out)
        if job is None:
            return
        # A second signal would cancel the studies being transferred: a double click stops it once.
        key = (folder.out, job.process)
        if cancel or key not in self._stopped:
            self._stopped.add(key)
            job.stop(cancel=cancel)


def _start(command: str, folder: JobPlace) -> None:
    with tempfile.TemporaryFile() as output:
        code = api.start_in_background([command, str(folder.out), "--detach"], output=output)
        if not code:
            return  # the job runs, or had nothing left to do
        output.seek(0)
        text = output.read(_MAX_OUTPUT).decode("utf-8", "replace").strip()
    errors = [line.removeprefix(_ERROR) for line in text.splitlines() if line.startswith(_ERROR)]
    raise StartError(errors[-1] if errors else f"quarry {command} ended with the exit code {code}")


def describe_failure(error: QuarryError) -> str:
    """Return the sentence of a page about an action that failed."""
    return f"The job was not changed: {error}"
