"""``quarry cluster``: the database that has the jobs of many hosts."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.command_class import QuarryCommand
from dicom_quarry.cli.console import fail, write_line
from dicom_quarry.errors import InputError

#: The lines behind the mark stay as they are.
_HELP = """Prepare and show the PostgreSQL database that has the jobs of many hosts.

\b
Examples:
  quarry cluster init postgresql://quarry@db.hospital.example/quarry
  quarry cluster status
  quarry cluster weight job:ct-2026 2
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


#: Characters of a line: at least and at most on a terminal; what is not for one is not wrapped.
_LEAST_WIDTH, _MAX_WIDTH, _NO_TERMINAL = 60, 120, 100_000

_Url = Annotated[str, typer.Argument(help="The database: postgresql://USER@HOST/DATABASE, without password.")]
_PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File with the password.  [default: the variable PGPASSWORD, or ~/.pgpass]"),
]


@cluster.command("init", cls=QuarryCommand, no_args_is_help=True)
def init(url: _Url, password_file: _PasswordFile = None) -> None:
    """Make the list of jobs in a database, once.

    The list is the schema quarry. Nothing is changed if it is there. Each job gets a schema of its own.

    Examples:
      quarry cluster init postgresql://quarry@db.hospital.example/quarry
    """
    made = api.init_cluster(url, password_file)
    write_line(
        "The list of jobs was made" if made else "The list of jobs is there already: nothing was changed"
    )
    password = f'  password-file = "{password_file.absolute()}"\n' if password_file else ""
    write_line(
        f'Write to quarry.toml:\n  [cluster]\n  ledger = "{url}"\n{password}'
        "Then a job is made with  quarry extract cohort.csv --job NAME --to DIR"
    )


@cluster.command("upgrade", cls=QuarryCommand, no_args_is_help=True)
def upgrade(url: _Url, password_file: _PasswordFile = None) -> None:
    """Bring a database to this version of Quarry: the list of jobs, the engine, the records of the jobs.

    Workers of the older version finish what they have, and take no more; those of this version go on when it
    is done. What another command works on is left, and named: repeat the upgrade when that has ended.

    Examples:
      quarry cluster upgrade postgresql://quarry@db.hospital.example/quarry
    """
    result = api.upgrade_cluster(
        url, password_file, lambda names: write_line(f"waits until these workers have finished: {names}")
    )
    write_line(f"The records of {api.format_count(result.jobs, 'job')} are of this version")
    if result.others:
        jobs = api.format_count(result.others, "job")
        write_line(f"{jobs} of other roles: have their users type the same command")
    for reason in result.left:
        fail(f"not upgraded: {reason}")
    if result.left:
        raise typer.Exit(1)


@cluster.command("status", cls=QuarryCommand)
def status(as_json: options.AsJson = False) -> None:
    """Show the workers of the database of ./quarry.toml, its archives with their limits, and its jobs.

    Workers: since when, their last sign of life, what they wait for. Archives: whether they answer, slots in
    use and by whom, window, rates. Jobs: weight, share, and studies.

    Examples:
      quarry cluster status
      quarry cluster status --json
    """
    found = api.read_cluster_status()
    if as_json:
        write_line(json.dumps(asdict(found), default=_to_json, indent=2))
        return
    width = max(_LEAST_WIDTH, min(shutil.get_terminal_size().columns, _MAX_WIDTH))
    for line in api.cluster_lines(found, width if sys.stdout.isatty() else _NO_TERMINAL):
        write_line(line)


_Job = Annotated[str, typer.Argument(metavar="job:NAME", help="A job of the database of ./quarry.toml.")]


@cluster.command("weight", cls=QuarryCommand, no_args_is_help=True)
def weight(
    job: _Job, share: Annotated[float, typer.Argument(help="Such as 2: twice the share of 1.")]
) -> None:
    """Give a job a larger or smaller share of the workers.

    The workers share themselves out by the weights of the jobs that have work; each has 1 at first. It holds
    from the next study on.

    Examples:
      quarry cluster weight job:ct-2026 2
      quarry cluster weight job:ct-2026 0.5
    """
    api.set_weight(job, share)
    write_line(f"{job} has the weight {share:g}")


@cluster.command("remove", cls=QuarryCommand, no_args_is_help=True)
def remove(
    job: _Job,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, what would go is shown.")] = False,
) -> None:
    """Remove the record of a job that nothing works on; its images and reports stay.

    Only the role that made the job can. The reports are as of their last writing: quarry report writes them
    once more, before.

    Examples:
      quarry cluster remove job:ct-2026
      quarry report job:ct-2026 && quarry cluster remove job:ct-2026 --yes
    """
    found = api.find_removable_job(job)
    parts = [
        api.format_count(found.rows, "row"),
        api.format_count(found.studies, "study"),
        api.format_count(found.audit_records, "record of the audit log", "records of the audit log"),
    ]
    goes, stays = ("gone", "there") if yes else ("would go", "would stay")
    folder = f"{found.job.folder} of the computer {found.job.host}"
    if yes:
        api.remove_job(found)
    write_line(f"{goes}: the record of {job}, with {', '.join(parts)}")
    write_line(f"{stays}: {folder}, with images, reports and logs")
    if not yes:
        raise InputError(f"nothing was removed. To remove it:  quarry cluster remove {job} --yes")


def _to_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
