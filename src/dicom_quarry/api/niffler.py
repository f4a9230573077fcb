"""Jobs of the extractor that Quarry replaces (Niffler), run or converted from its own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.cohort.table import open_table
from dicom_quarry.config.niffler import NifflerConfig, load_niffler_config
from dicom_quarry.config.scaffold import ScaffoldOptions
from dicom_quarry.config.settings import DEFAULT_FILEPATH, Settings
from dicom_quarry.errors import InputError
from dicom_quarry.plurals import format_count


@dataclass(frozen=True, slots=True)
class NifflerJob:
    """A Niffler job as Quarry runs it; ``notes`` say what differs."""

    settings: Settings
    cohort: Path
    notes: tuple[str, ...]


def load_niffler_job(path: Path, cohort: Path | None, flags: dict[str, object]) -> NifflerJob:
    """Read a job from its config.json; ``cohort`` and ``flags`` win over it.

    Raises InputError, also where the file requests queries alone.
    """
    config = load_niffler_config(path)
    if config.plan_mode:
        detailed = " --detailed" if config.plan_mode == "detailed" else ""
        raise InputError(
            f"{path} only queries (CFIND) and fetches nothing. "
            f"Run: quarry plan {config.cohort_file}{detailed}"
        )
    table = cohort or config.cohort_file
    settings = config.to_settings({**_table_flags(config, table), **flags})
    return NifflerJob(settings, table, config.notes)


def _table_flags(config: NifflerConfig, table: Path) -> dict[str, object]:
    header = open_table(table, lambda _: True)[0].header
    missing = [index for index in config.columns if index >= len(header)]
    if missing:
        raise InputError(
            f"{table} has {format_count(len(header), 'column')}; there is no column {missing[0]}, "
            "counted from 0"
        )
    columns = [f"{header[index].strip()}={keyword}" for index, keyword in config.columns.items()]
    rewrite = {"rewrite": ["long-accession"]} if config.long_accession else {}
    return {"map": columns, "date_format": config.date_format, **rewrite}


@dataclass(frozen=True, slots=True)
class NifflerConversion:
    """A Niffler configuration as options for a new quarry.toml, and its cohort in words."""

    options: ScaffoldOptions
    cohort: str
    is_plan: bool


def convert_niffler_config(path: Path) -> NifflerConversion:
    """Convert a config.json, and the system.json that it names; raises ConfigError."""
    config = load_niffler_config(path)
    columns = ", ".join(
        f"column {index + 1} is {keyword}" for index, keyword in sorted(config.columns.items())
    )
    flags = config.flags
    options = ScaffoldOptions(
        archive=flags["from"],
        local=flags["as"],
        to=flags["to"],
        window=config.window,
        filepath=flags.get("filepath", DEFAULT_FILEPATH),
        mail_to=config.mail_to,
        notes=config.notes,
    )
    return NifflerConversion(options, f"{config.cohort_file}; {columns}", bool(config.plan_mode))
