"""``quarry demo``: an archive with synthetic studies, and three extractions from it."""

from __future__ import annotations

import signal
import socket
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.cli.extract import run
from dicom_quarry.config import load


def demo(
    to: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("demo"),
    serve: Annotated[
        bool, typer.Option("--serve", help="Only run the archive, and say what to type in another terminal.")
    ] = False,
) -> None:
    """Start an archive with synthetic studies on this computer and extract three cohorts from it.

    Example:  quarry demo --to demo/
    """
    # Imported here: only this command needs the demo archive, and pynetdicom with it.
    from dicom_quarry.demo.archive import DemoArchive
    from dicom_quarry.demo.cohort import demo_studies, write_cohorts

    studies = demo_studies()
    to.mkdir(parents=True, exist_ok=True)
    cohorts = write_cohorts(to, studies)
    port = _free_port()
    with DemoArchive(studies, destinations={"QUARRY": ("127.0.0.1", port)}) as archive:
        remote, local = f"DEMO@127.0.0.1:{archive.port}", f"QUARRY@127.0.0.1:{port}"
        out.print(f"demo archive: {remote}, {len(studies)} synthetic studies")
        for cohort in cohorts:
            folder = to / cohort.stem
            command = f"quarry extract {cohort} --from {remote} --as {local} --to {folder}"
            out.print(f"\n[bold]$ {command}[/bold]")
            if not serve:
                _extract(cohort, folder, remote, local)
        if serve:
            out.print("\nthe archive runs until Ctrl-C")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _extract(cohort: Path, folder: Path, remote: str, local: str) -> None:
    out.print(cohort.read_text(), markup=False, end="")
    code = run(load(None, {"from": remote, "as": local, "to": folder}), lambda job: job.extract(cohort))
    out.print(f"exit code {code}; some of the files in {folder}:")
    for path in islice(sorted(folder.rglob("*.dcm")), 3):
        out.print(f"  {path}", markup=False)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
