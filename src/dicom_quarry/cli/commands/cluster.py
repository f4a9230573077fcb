"""``quarry cluster``: the database that has the jobs of many hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli.command_class import QuarryCommand
from dicom_quarry.cli.console import write_line

#: The lines behind the mark stay as they are.
_HELP = """Prepare the PostgreSQL database that has the jobs of many hosts.

\b
Examples:
  quarry cluster init postgresql://quarry@db.hospital.example/quarry
  quarry cluster init 'postgresql://quarry@db.hospital.example/quarry?sslmode=verify-full'
  quarry cluster init postgresql://quarry@db.hospital.example/quarry --password-file quarry.password
"""

cluster = typer.Typer(
    help=_HELP,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@cluster.callback(help=_HELP)
def _cluster() -> None:
    """Have commands of its own, also while there is one."""


@cluster.command("init", cls=QuarryCommand, no_args_is_help=True)
def init(
    url: Annotated[
        str, typer.Argument(help="The database: postgresql://USER@HOST/DATABASE, without password.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(help="File with the password.  [default: the variable PGPASSWORD, or ~/.pgpass]"),
    ] = None,
) -> None:
    """Make the list of jobs in a database, once.

    The list is the schema quarry. Nothing is changed if it is there. Each job gets a schema of its own.

    Examples:
      quarry cluster init postgresql://quarry@db.hospital.example/quarry
    """
    made = api.init_cluster(url, password_file)
    write_line(
        "The list of jobs was made" if made else "The list of jobs is there already: nothing was changed"
    )
    write_line(
        f'Write to quarry.toml:\n  [cluster]\n  ledger = "{url}"\n'
        "Then a job is made with  quarry extract cohort.csv --job NAME --to DIR"
    )
