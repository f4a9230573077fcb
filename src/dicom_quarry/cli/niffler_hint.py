"""``quarry extract --niffler``: a job of the extractor that Quarry replaces, from that one's own files."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.cli.console import err
from dicom_quarry.cohort.table import open_table
from dicom_quarry.config.niffler import Niffler, read
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError


def taken_over(path: Path, cohort: Path | None, flags: dict[str, object]) -> tuple[Settings, Path]:
    """What to run over which table, told by its config.json; ``flags`` win. Raises InputError."""
    told = read(path)
    for note in told.notes:
        err.print(note, markup=False)
    if told.plan:
        detailed = " --detailed" if told.plan == "detailed" else ""
        raise InputError(f"{path} only asks what is there: run  quarry plan {told.cohort}{detailed}")
    table = cohort or told.cohort
    return told.settings({**_table_flags(told, table), **flags}), table


def _table_flags(told: Niffler, table: Path) -> dict[str, object]:
    header = open_table(table, lambda _: True)[0].header
    beyond = [at for at in told.columns if at >= len(header)]
    if beyond:
        raise InputError(f"{table} has {len(header)} columns; there is no column {beyond[0]}, counted from 0")
    columns = [f"{header[at].strip()}={keyword}" for at, keyword in told.columns.items()]
    rewrite = {"rewrite": ["long-accession"]} if told.long_accession else {}
    return {"map": columns, "date_format": told.date_format, **rewrite}
