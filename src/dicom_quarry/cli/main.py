"""The ``quarry`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dicom_quarry.cli import check, demo, extract, init, jobs, plan, receive, report, status, stop, verify
from dicom_quarry.cli.console import fail
from dicom_quarry.errors import QuarryError, StartError
from dicom_quarry.version import __version__

app = typer.Typer(
    name="quarry",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init.init)
app.command()(check.check)
app.command(no_args_is_help=True)(plan.plan)
app.command(no_args_is_help=True)(extract.extract)
app.command(no_args_is_help=True)(status.status)
app.command("list")(jobs.list_jobs)
app.command(no_args_is_help=True)(stop.stop)
app.command(no_args_is_help=True)(report.report)
app.command(no_args_is_help=True)(verify.verify)
app.command(no_args_is_help=True)(extract.retry)
# What is no option is one more title behind --accept.
app.command(no_args_is_help=True, context_settings={"allow_extra_args": True})(receive.receive)
app.command()(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"quarry {__version__}")
        raise typer.Exit


@app.callback()
def _quarry(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Extract a research cohort from a PACS: from CSV to a verified DICOM tree.

    Exit codes: 0 every row complete; 1 finished, the report explains the exceptions; 2 usage,
    configuration or input; 3 could not start; 4 not finished, run again to go on.
    """


def main() -> None:
    """Run the command; a user's mistake is a sentence, never a traceback."""
    try:
        app()
    except StartError as error:
        fail(error)
        sys.exit(3)
    except QuarryError as error:
        fail(error)
        sys.exit(2)
    except OSError as error:
        fail(error)
        sys.exit(3)
