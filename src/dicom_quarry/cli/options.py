"""Options that several commands take, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.completion import complete_job

_FOLDER = typer.Argument(help="The folder of a job (its --to).", autocompletion=complete_job)
Folder = Annotated[Path, _FOLDER]
OptionalFolder = Annotated[Path | None, _FOLDER]
FolderOrDefault = Annotated[
    Path | None,
    typer.Argument(
        help="The folder of a job (its --to).  [default: 'to' in quarry.toml, the current folder, or the "
        "last job]",
        autocompletion=complete_job,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts; without patient identifiers.")]

Identifiers = Annotated[
    bool,
    typer.Option("--identifiers", help="Also show the values of your table, which may name patients."),
]

_TO = typer.Option("--to", help="Output folder: images, reports and the job's record.")
To = Annotated[Path | None, _TO]
ToWithDefault = Annotated[Path, _TO]

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings file.  [default: ./quarry.toml, if there is one]")
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="Folders by a known layout: niffler, patient/date-modality or accession.  [default: niffler]"
    ),
]
PortableNames = Annotated[
    bool,
    typer.Option(
        "--portable-names", help="Folder names for disks that Windows reads, too: abc123 becomes abc123~."
    ),
]
FileMode = Annotated[
    str | None, typer.Option(help="Mode of the files, such as 0640; folders to match.  [default: 0600]")
]
Group = Annotated[
    str | None, typer.Option(help="Group that may read the files, by name or number.  [default: you alone]")
]
TrustOwner = Annotated[
    bool,
    typer.Option(
        "--trust-owner", help="Use folders and settings of another user, or that others may write to."
    ),
]
Queue = Annotated[
    bool, typer.Option("--queue", help="If another job of this computer uses our port, start after it.")
]
IdleLimit = Annotated[
    float, typer.Option("--idle-limit", min=0, help="Seconds after which an idle association ends; 0: never.")
]
JobName = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="NAME",
        help="Keep the job's record under this name in the database of [cluster] ledger.  "
        "[default: in the folder]",
        show_default=False,
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Run in the background, also after you close the terminal or SSH.")
]
