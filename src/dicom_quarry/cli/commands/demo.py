"""``quarry demo``: an archive with synthetic studies, and three extractions from it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.cli.display.run_job import run_job
from dicom_quarry.config.settings import load_settings


def demo(
    to: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("demo"),
    serve: Annotated[
        bool, typer.Option("--serve", help="Only run the archive, and say what to type in another terminal.")
    ] = False,
    dicomweb: Annotated[
        bool, typer.Option("--dicomweb", help="Ask and fetch over HTTP (QIDO-RS, WADO-RS): no receiver.")
    ] = False,
) -> None:
    """Start an archive with synthetic studies on this computer and extract three cohorts from it.

    Example:  quarry demo --to demo/
    """
    # Imported here: only this command needs the demo archive, and pynetdicom with it.
    from dicom_quarry.demo.dicomweb_server import DemoWebServer
    from dicom_quarry.demo.dimse_server import DemoArchive
    from dicom_quarry.demo.sample_cohorts import make_demo_studies, write_cohorts

    studies = make_demo_studies()
    to.mkdir(parents=True, exist_ok=True)
    cohorts = write_cohorts(to, studies)
    port = _free_port()
    archive = DemoArchive(studies, destinations={"QUARRY": ("127.0.0.1", port)})
    with archive, DemoWebServer(archive.catalogue) as web:
        remote, local = f"DEMO@127.0.0.1:{archive.port}", f"QUARRY@127.0.0.1:{port}"
        out.print(f"demo archive: {remote} and {web.base_url}, {len(studies)} synthetic studies")
        flags = {"from": web.base_url} if dicomweb else {"from": remote, "as": local}
        for cohort in cohorts:
            folder = to / (f"{cohort.stem}-dicomweb" if dicomweb else cohort.stem)
            given = " ".join(f"--{name} {value}" for name, value in flags.items())
            out.print(f"\n[bold]$ quarry extract {cohort} {given} --to {folder}[/bold]")
            if not serve:
                _extract(cohort, folder, flags)
        if serve:
            out.print("\nthe archive runs until Ctrl-C")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _extract(cohort: Path, folder: Path, flags: Mapping[str, str]) -> None:
    out.print(cohort.read_text(), markup=False, end="")
    code = run_job(load_settings(None, {**flags, "to": folder}), lambda job: job.extract(cohort))
    out.print(f"exit code {code}; some of the files in {folder}:")
    for path in islice(sorted(folder.rglob("*.dcm")), 3):
        out.print(f"  {path}", markup=False)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
