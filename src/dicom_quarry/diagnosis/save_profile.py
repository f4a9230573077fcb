"""What a check learned goes into quarry.toml; whatever else stands there stays, comments included."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from dicom_quarry.config.settings import read_toml
from dicom_quarry.diagnosis.context import Bench
from dicom_quarry.errors import ConfigError


def profile(bench: Bench) -> dict[str, object]:
    """The settings of the archive that are known now, as they are spelled in the file."""
    learned = bench.learned
    if bench.profile.address is None:
        return {"dicomweb": str(bench.profile.dicomweb)}
    found: dict[str, object] = {"address": str(bench.profile.address)}
    if learned.model is not None:
        found["model"] = learned.model
    if learned.result_cap is not None:
        found["result-cap"] = learned.result_cap
    if learned.only_get:
        found["retrieve"] = "get"
    if learned.senders:
        found["senders"] = learned.senders
    return found


def save(path: Path, bench: Bench) -> list[str]:
    """Write the profile; what was written, line by line, empty if all stood there. Raises ConfigError.

    ``from`` and ``as`` are written where the file has none: the next command then needs no flags for them.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    name = bench.profile.name
    told = _first(
        document, {"from": name} | ({"as": str(bench.local)} if bench.profile.address is not None else {})
    )
    archives = document.setdefault("archive", tomlkit.table(is_super_table=True))
    if not isinstance(archives, MutableMapping):
        raise ConfigError(f"{path}: archives stand in tables of their own, such as [archive.main]")
    table = archives.setdefault(name, tomlkit.table())
    told += _merge(table, profile(bench), f"[archive.{name}] ")
    if told:
        _replace(path, tomlkit.dumps(document))
    return told


def _first(document: tomlkit.TOMLDocument, values: Mapping[str, object]) -> list[str]:
    """Settings of the whole file, where they are missing: above its first table."""
    missing = {name: value for name, value in values.items() if name not in document}
    for name, value in missing.items():
        document.append(name, tomlkit.item(value))
    return [f"{name} = {_shown(value)}" for name, value in missing.items()]


def _merge(table: MutableMapping[str, Any], values: Mapping[str, object], where: str) -> list[str]:
    told = []
    for name, value in values.items():
        # Somebody may have written result_cap, which is understood as well.
        spelling = name if name in table else name.replace("-", "_")
        before = table.get(spelling)
        if before == value:
            continue
        table[spelling if spelling in table else name] = value
        was = "" if before is None else f" (it was {_shown(before)})"
        told.append(f"{where}{name} = {_shown(value)}{was}")
    return told


def _shown(value: object) -> str:
    return str(tomlkit.item(value).as_string())


def _replace(path: Path, text: str) -> None:
    """Put the text in the file's place, if it can be read by everybody else here; with its permissions."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        read_toml(temporary)
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
