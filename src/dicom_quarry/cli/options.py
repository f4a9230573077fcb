"""Flags that several commands have, and the settings that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.config.settings import DEFAULT_LOCAL

_ARCHIVE = "AET@HOST:PORT, https://HOST/PATH, or a name from quarry.toml; several, in order, with commas."

From = Annotated[str | None, typer.Option("--from", help=_ARCHIVE)]
As = Annotated[
    str | None, typer.Option("--as", help=f"Our receiver: AET[@IP]:PORT.  [default: {DEFAULT_LOCAL}]")
]
Retrieve = Annotated[
    str | None,
    typer.Option(help="How images come: move, get or wado.  [default: auto, the first by which any come]"),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings.  [default: ./quarry.toml, if it is there]")
]

FileMode = Annotated[
    str | None, typer.Option(help="Mode of files, such as 0640; folders to match.  [default: 0600]")
]
Group = Annotated[
    str | None, typer.Option(help="Group that may read, by name or number.  [default: nobody else may]")
]

Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="A column's meaning, such as 'Acc No=AccessionNumber'; repeatable."),
]
Where = Annotated[
    list[str] | None, typer.Option(help="A condition for every row, such as Modality=CT; repeatable.")
]
Rewrite = Annotated[
    list[str] | None,
    typer.Option(help="How else values may be meant: yyyy-to-yy, long-accession, s/…/…/; repeatable."),
]
Pad = Annotated[
    list[str] | None, typer.Option(help="Leading zeros to a width, such as PatientID=8; repeatable.")
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="A table of patients, accessions or study UIDs that must not be taken; repeatable."),
]
Protocol = Annotated[
    str | None, typer.Option(help="The approval that this job runs under, for audit.csv: IRB-2026-014.")
]
DateFormat = Annotated[
    str | None, typer.Option(help="How dates are written, such as %d.%m.%Y, or excel for serial numbers.")
]
AllowWildcards = Annotated[
    bool, typer.Option("--allow-wildcards", help="Let * and ? in the table match anything.")
]
Series = Annotated[
    list[str] | None, typer.Option(help="Only these series, such as Modality=CT,MR; repeatable.")
]
SeriesNot = Annotated[
    list[str] | None, typer.Option(help="Not these series, such as Modality=SR,PR,KO; repeatable.")
]
MinInstances = Annotated[int | None, typer.Option(help="Only series of so many instances or more.")]
WholePatients = Annotated[
    bool, typer.Option("--whole-patients", help="Let a row with a patient alone mean all of the studies.")
]
AllowSeveralPatients = Annotated[
    bool, typer.Option("--allow-several-patients", help="Take an accession that several patients share.")
]
MaxStudies = Annotated[
    int | None, typer.Option(help="Studies that one row may mean, or it is not moved.  [default: 10]")
]
NoDiagnosis = Annotated[
    bool, typer.Option("--no-diagnosis", help="Do not look for what is near a row that matched nothing.")
]
Queue = Annotated[bool, typer.Option("--queue", help="Where another job has our port, start after it.")]
Detach = Annotated[
    bool, typer.Option("--detach", help="Run in the background, also when the terminal or SSH session ends.")
]


def drop_unset(flags: Mapping[str, object]) -> dict[str, object]:
    """Flags as settings: what was not given leaves the word to quarry.toml."""
    return {name: value for name, value in flags.items() if value not in (None, False, [])}
