"""Options for archives, and for reading a cohort table and choosing its studies; each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.api import DEFAULT_LOCAL
from dicom_quarry.cli.completion import complete_archive, complete_transport

_COHORT = typer.Argument(
    help="A table with a header, such as EMPI,Accession: CSV, TSV, XLSX, or - for standard input."
)
Cohort = Annotated[Path, _COHORT]
OptionalCohort = Annotated[Path | None, _COHORT]

From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Archive: AET@HOST:PORT, https://HOST/PATH, or a name from quarry.toml; several with commas.",
        autocompletion=complete_archive,
    ),
]
As = Annotated[
    str | None, typer.Option("--as", help=f"Our receiver: AET[@IP]:PORT.  [default: {DEFAULT_LOCAL}]")
]
Map = Annotated[
    list[str] | None,
    typer.Option("--map", help="Meaning of a column, such as 'Acc No=AccessionNumber'; repeatable."),
]
IgnoreColumn = Annotated[
    list[str] | None,
    typer.Option(help="A column that is not to be searched by, though its header looks so; repeatable."),
]
Verbatim = Annotated[
    list[str] | None,
    typer.Option(help="A column whose values are right, though they look odd, as 4.711 does; repeatable."),
]
HiddenRows = Annotated[
    str | None,
    typer.Option(
        help="Hidden rows and columns of a workbook: take or skip.  [default: refuse them]",
        autocompletion=lambda: ["take", "skip"],
    ),
]
Where = Annotated[
    list[str] | None, typer.Option(help="A condition for every row, such as Modality=CT; repeatable.")
]
Rewrite = Annotated[
    list[str] | None,
    typer.Option(help="Search for other spellings, too: yyyy-to-yy, long-accession, s/…/…/; repeatable."),
]
Pad = Annotated[
    list[str] | None, typer.Option(help="Fill up with leading zeros, such as PatientID=8; repeatable.")
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="A table of patients, accessions or study UIDs never to fetch; repeatable."),
]
DateFormat = Annotated[
    str | None,
    typer.Option(help="Format of dates, such as mm/dd/yyyy or %d.%m.%Y, or excel for serial numbers."),
]
AllowWildcards = Annotated[
    bool, typer.Option("--allow-wildcards", help="Use * and ? in the table as wildcards.")
]
LongIdentifiers = Annotated[
    bool, typer.Option("--long-identifiers", help="Search for identifiers longer than DICOM allows, too.")
]
Series = Annotated[
    list[str] | None, typer.Option(help="Only these series, such as Modality=CT,MR; repeatable.")
]
SeriesNot = Annotated[
    list[str] | None, typer.Option(help="Not these series, such as Modality=SR,PR,KO; repeatable.")
]
MinInstances = Annotated[int | None, typer.Option(help="Only series with at least this number of instances.")]
WholePatients = Annotated[
    bool,
    typer.Option("--whole-patients", help="Fetch all studies of the patient for a row with a patient alone."),
]
AllowSeveralPatients = Annotated[
    bool,
    typer.Option("--allow-several-patients", help="Fetch the studies of an accession of several patients."),
]
MaxStudies = Annotated[
    int | None,
    typer.Option(help="Maximum studies per row; a row that matches more is not retrieved.  [default: 10]"),
]
NoDiagnosis = Annotated[
    bool, typer.Option("--no-diagnosis", help="Do not search for similar studies when a row has no match.")
]
AnyNumber = Annotated[bool, typer.Option("--yes", help="Retrieve any number of studies per row.")]
AcceptMismatch = Annotated[
    bool,
    typer.Option("--accept-mismatch", help="Store images even if patient ID or accession differ."),
]
Retrieve = Annotated[
    str | None,
    typer.Option(
        help="Transfer method: move, get or wado.  [default: auto, the first that works]",
        autocompletion=complete_transport,
    ),
]


def drop_unset(flags: Mapping[str, object]) -> dict[str, object]:
    """Return the flags that were given; for the others quarry.toml decides."""
    return {
        name: value
        for name, value in flags.items()
        if value is not None and value is not False and value != []
    }
