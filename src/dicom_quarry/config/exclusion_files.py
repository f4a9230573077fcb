"""The setting ``exclude``: the files of the exclusion lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from dicom_quarry.config.credentials import AbsolutePath, FrozenModel
from dicom_quarry.config.toml_file import FILE_NAME, normalize_keys, validate_model
from dicom_quarry.errors import ConfigError


def as_list(value: object) -> object:
    """Return one text, or one path, as a list of one."""
    return [value] if isinstance(value, str | Path) else value


#: One text or several.
Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(as_list)]


class ExclusionFile(FrozenModel):
    """An exclusion list, and the decisions of its owner about columns that are in doubt.

    ``ignore``: headers of columns without identifiers. ``verbatim``: headers of columns in which every cell
    is one identifier as written, also with spaces, slashes or other separators.
    """

    file: AbsolutePath
    ignore: Texts = ()
    verbatim: Texts = ()


def parse_exclusion_file(value: object, source: Path) -> ExclusionFile:
    """Read one entry of ``exclude``: a path, or a table with ``file``; ``source`` is for messages."""
    if isinstance(value, ExclusionFile):
        return value
    if isinstance(value, str | Path):
        value = {"file": value}
    if not isinstance(value, dict) or "file" not in value:
        raise ConfigError(
            f'{source}: exclude: write "optout.csv", or {{file = "optout.csv", ignore = ["HEADER"]}} '
            f"(it is {value!r})"
        )
    return validate_model(ExclusionFile, normalize_keys(value), source, "exclude: ")


def parse_exclusion_files(value: object, source: Path) -> tuple[ExclusionFile, ...]:
    """Read the setting ``exclude``: one entry, or a list of entries; raises ConfigError."""
    return tuple(
        parse_exclusion_file(one, source) for one in (value if isinstance(value, list | tuple) else [value])
    )


#: The setting ``exclude``, also as an earlier job recorded it.
ExclusionFiles = Annotated[
    tuple[ExclusionFile, ...],
    BeforeValidator(lambda value: parse_exclusion_files(value, Path(FILE_NAME))),
]


def join_exclusion_files(in_file: object, given: object, source: Path) -> list[ExclusionFile]:
    """Return the lists of the file and of the options; a file's decisions hold for the option, too."""
    found = parse_exclusion_files(in_file, source)
    paths = {one.file for one in found}
    return [*found, *(one for one in parse_exclusion_files(given, source) if one.file not in paths)]
