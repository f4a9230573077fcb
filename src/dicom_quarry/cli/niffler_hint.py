"""``quarry extract --niffler``: a job of the extractor that Quarry replaces, from that one's own files."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry.cli.console import err
from dicom_quarry.cohort.table import open_table
from dicom_quarry.config.niffler import NifflerConfig, load_niffler_config
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError


def load_niffler_job(path: Path, cohort: Path | None, flags: dict[str, object]) -> tuple[Settings, Path]:
    """What to run over which table, told by its config.json; ``flags`` win. Raises InputError."""
    niffler_job = load_niffler_config(path)
    for note in niffler_job.notes:
        err.print(note, markup=False)
    if niffler_job.plan_mode:
        detailed = " --detailed" if niffler_job.plan_mode == "detailed" else ""
        raise InputError(
            f"{path} only asks what is there: run  quarry plan {niffler_job.cohort_file}{detailed}"
        )
    table = cohort or niffler_job.cohort_file
    return niffler_job.to_settings({**_table_flags(niffler_job, table), **flags}), table


def _table_flags(niffler_job: NifflerConfig, table: Path) -> dict[str, object]:
    header = open_table(table, lambda _: True)[0].header
    missing = [at for at in niffler_job.columns if at >= len(header)]
    if missing:
        raise InputError(
            f"{table} has {len(header)} columns; there is no column {missing[0]}, counted from 0"
        )
    columns = [f"{header[at].strip()}={keyword}" for at, keyword in niffler_job.columns.items()]
    rewrite = {"rewrite": ["long-accession"]} if niffler_job.long_accession else {}
    return {"map": columns, "date_format": niffler_job.date_format, **rewrite}
