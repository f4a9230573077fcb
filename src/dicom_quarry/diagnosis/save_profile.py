"""Save the findings of a check in quarry.toml; other settings and comments there are kept."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from dicom_quarry.config.toml_file import parse_toml
from dicom_quarry.diagnosis.context import CheckContext
from dicom_quarry.errors import ConfigError
from dicom_quarry.system.atomic_file import atomic_write_text
from dicom_quarry.system.permissions import Permissions


def profile_settings(context: CheckContext) -> dict[str, object]:
    """Return the settings of the archive that the check has found, as they are spelled in the file."""
    findings = context.findings
    if context.profile.address is None:
        return {"dicomweb": str(context.profile.dicomweb)}
    found: dict[str, object] = {"address": str(context.profile.address)}
    if findings.model is not None:
        found["model"] = findings.model
    if findings.result_cap is not None:
        found["result-cap"] = findings.result_cap
    if findings.only_get_works:
        found["retrieve"] = "get"
    if findings.senders:
        found["senders"] = findings.senders
    return found


def save_profile(path: Path, context: CheckContext) -> list[str]:
    """Write the profile; returns the lines that were added or changed. Raises ConfigError.

    ``from`` and ``as`` are written where the file has none: the next command then needs no flags for them.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    name = context.profile.name
    changes = _add_missing(
        document, {"from": name} | ({"as": str(context.local)} if context.profile.address is not None else {})
    )
    archives = document.setdefault("archive", tomlkit.table(is_super_table=True))
    if not isinstance(archives, MutableMapping):
        raise ConfigError(f"{path}: each archive needs a table of its own, such as [archive.main]")
    table = archives.setdefault(name, tomlkit.table())
    changes += _merge(table, profile_settings(context), f"[archive.{name}] ")
    if changes:
        _replace_file(path, tomlkit.dumps(document))
    return changes


def _add_missing(document: tomlkit.TOMLDocument, values: Mapping[str, object]) -> list[str]:
    """Add settings that are missing above the first table of the file."""
    missing = {name: value for name, value in values.items() if name not in document}
    for name, value in missing.items():
        document.append(name, tomlkit.item(value))
    return [f"{name} = {_format_value(value)}" for name, value in missing.items()]


def _merge(table: MutableMapping[str, Any], values: Mapping[str, object], where: str) -> list[str]:
    changes = []
    for name, value in values.items():
        # The file may have result_cap, which is read as well.
        spelling = name if name in table else name.replace("-", "_")
        before = table.get(spelling)
        if before == value:
            continue
        table[spelling if spelling in table else name] = value
        was = "" if before is None else f" (it was {_format_value(before)})"
        changes.append(f"{where}{name} = {_format_value(value)}{was}")
    return changes


def _format_value(value: object) -> str:
    return str(tomlkit.item(value).as_string())


def _replace_file(path: Path, text: str) -> None:
    """Replace the file, keeping its permissions, after a check that every other command can read the text."""
    parse_toml(text, path)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with atomic_write_text(path, Permissions(mode)) as file:
        file.write(text)
