"""A worker of a database of jobs."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.completion.worker_commands import WorkerCommand
from dicom_quarry.config.settings import load_settings
from dicom_quarry.config.toml_file import FILE_NAME, read_toml
from dicom_quarry.errors import ConfigError
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.system.file_systems import describe_missing_links, has_hard_links
from dicom_quarry.system.subprocess_runner import check_program, parse_command

if TYPE_CHECKING:
    from dicom_quarry.cluster.service import WorkerService


def make_worker(
    config: Path | None, root: Path, receiver: str | None, parallel: int | None, observer: JobObserver
) -> WorkerService:
    """Make the worker with the archives of the settings file; ``root`` has the folders of its jobs.

    ``receiver`` is ``AET[@IP]:PORT``; the database is ``[cluster] ledger``. Raises ConfigError.
    """
    source = config or Path(FILE_NAME)
    archives = read_toml(source).get("archive", {}) if source.is_file() else {}
    if not isinstance(archives, dict) or not archives:
        raise ConfigError(
            f"{source} names no archive: a worker fetches from those that it has a table for, such as "
            "[archive.main]"
        )
    flags = {"to": root, "as": receiver, "parallel": parallel, "from": ",".join(archives)}
    settings = load_settings(config, flags)
    if not settings.cluster.ledger:
        raise ConfigError(
            f'{source} does not name the database of the jobs: write  [cluster]  ledger = "postgresql://'
            'USER@HOST/DATABASE"  there'
        )
    if not root.is_dir():
        raise ConfigError(f"--root {root} is not a folder: make it, or mount the disk that has it")
    with suppress(PermissionError):  # the folders of the jobs are tried when they are opened
        if not has_hard_links(root):
            raise ConfigError(f"--root: {describe_missing_links(root)}")
    # Imported here: it needs the extra [cluster].
    from dicom_quarry.api.worker_comparison import report_comparison
    from dicom_quarry.cluster.service import WorkerService
    from dicom_quarry.verification.worker_part import compare_next_part

    def make_commands(context: JobContext, reader: LedgerReader, name: str) -> WorkerCommand | None:
        command = settings.commands.get(name)
        return WorkerCommand(context, settings, command, reader) if command else None

    for name, command in settings.commands.items():
        check_program(f"[commands] {name}", parse_command(command))
    own = settings.model_copy(update={"to": root.absolute()})
    compare_part = partial(compare_next_part, on_end=report_comparison)
    return WorkerService(own, observer, make_commands, compare_part)
