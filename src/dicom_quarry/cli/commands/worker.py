"""``quarry worker``: work on the jobs of a database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import cohort_options, options
from dicom_quarry.cli.console import write_line
from dicom_quarry.cli.display.plain import PlainDisplay
from dicom_quarry.cli.display.warning_lines import log_warnings

#: Seconds after the second signal until the process ends, whatever it waits for.
_LAST_MINUTES = 600.0

#: The libraries of the database and the engine have something to say, too.
_ALL_LOGGERS = ""


def worker(
    root: Annotated[
        Path, typer.Option(help="Folder that has the folders of the jobs; the same disk on every worker.")
    ],
    as_: cohort_options.As = None,
    parallel: Annotated[
        int | None, typer.Option(help="Maximum studies to retrieve at the same time.  [default: 1]")
    ] = None,
    config: options.ConfigFile = None,
) -> None:
    """Work on the jobs of a database, until Ctrl-C or SIGTERM.

    The database and the archives are those of quarry.toml. Jobs are made with quarry extract --job NAME, on
    any computer. What is being transferred is finished first; a second signal cancels it.

    Examples:
      quarry worker --as QUARRY1:11112 --root /data/research
      quarry worker --as QUARRY1:11112 --root /data/research --parallel 4
      quarry worker --as QUARRY2@10.1.2.9:11112 --root /data/research --config worker.toml
    """
    with log_warnings(_ALL_LOGGERS), api.StopSignals(end_after=_LAST_MINUTES) as signals:
        service = api.make_worker(config, root, as_, parallel, PlainDisplay())
        signals.begin(service.stop)
        service.run(lambda: write_line(f"ready: {service.name}, for the jobs below {root}"))
        signals.finish()
    write_line("stopped")
