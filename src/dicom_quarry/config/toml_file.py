"""The file of settings, quarry.toml, and its tables as models."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dicom_quarry.config.command_sources import reject_foreign_commands, reject_foreign_database
from dicom_quarry.config.type_words import describe_type
from dicom_quarry.errors import ConfigError

FILE_NAME = "quarry.toml"

T = TypeVar("T", bound=BaseModel)


def read_toml(path: Path, *, accept_commands: bool = False) -> dict[str, Any]:
    """Read a file of settings, its names normalized; raise ConfigError if it cannot be read.

    Commands in a file that another user could have written are refused, unless ``accept_commands``.
    """
    try:
        with path.open("rb") as file:
            found, text = os.fstat(file.fileno()), file.read().decode("utf-8")
        table = parse_toml(text, path)
        reject_foreign_commands(table, path, found, trust_owner=accept_commands)
        reject_foreign_database(table, path, found, trust_owner=accept_commands)
        return table
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Parse the text of the settings file ``path``, its names normalized; raise ConfigError."""
    try:
        return normalize_keys(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def normalize_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with the names of the models' fields: ``time-zone`` is ``time_zone``."""
    return {name.replace("-", "_"): value for name, value in table.items()}


def validate_table(model: type[T], values: object, source: Path, name: str) -> T:
    """Return a model of the table ``name`` of a file; raise ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: {name} is a table: write its settings below [{name}]")
    return validate_model(model, normalize_keys(values), source, f"[{name}] ")


def validate_model(model: type[T], values: Mapping[str, object], source: Path, prefix: str = "") -> T:
    """Return a model of the values of a file; raise ConfigError with the setting and the problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        if first["type"] == "extra_forbidden":
            names = {*model.model_fields, *(["layout"] if "filepath" in model.model_fields else [])}
            known = ", ".join(sorted(name.replace("_", "-") for name in names))
            raise ConfigError(
                f"{source}: {prefix}'{setting}' is not a setting. Known settings: {known}"
            ) from error
        message = describe_type(first["type"]) or first["msg"].removeprefix("Value error, ")
        if isinstance(first["input"], dict):
            # The problem is in the table as a whole: its values are not repeated.
            raise ConfigError(f"{source}: {prefix}{setting}{': ' if setting else ''}{message}") from error
        raise ConfigError(f"{prefix}{setting}: {message} (it is {first['input']!r})") from error
