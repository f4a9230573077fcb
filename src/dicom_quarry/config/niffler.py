"""The former extractor's config.json and system.json (Niffler), read into Quarry's settings. Pure.

Paths are relative to the folder of config.json, from which that extractor was run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from dicom_quarry.config import time_window
from dicom_quarry.config.notifications import Notify
from dicom_quarry.config.settings import ArchiveProfile, Settings, validated
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE

#: Words in place of a path pattern: queries alone, and whether with the longer list of columns.
_PLANS = {"CFIND-ONLY": "plain", "CFIND-DETAILED": "detailed"}

_ORDINALS = ("First", "Second", "Third")
_COLUMNS = {f"{ordinal}{part}" for ordinal in _ORDINALS for part in ("Attr", "Index")}
_CONFIG = {
    "NifflerSystem",
    "StorageFolder",
    "FilePath",
    "CsvFile",
    "NumberOfQueryAttributes",
    *_COLUMNS,
    "LongAccession",
    "DateFormat",
    "SendEmail",
    "YourEmail",
}
_SYSTEM = {
    "DCM4CHEBin",
    "SrcAet",
    "QueryAet",
    "DestAet",
    "NightlyOnly",
    "StartHour",
    "EndHour",
    "NifflerID",
    "MaxNifflerProcesses",
}


@dataclass(frozen=True, slots=True)
class Niffler:
    """What the two files say, in Quarry's terms; identifiers are not in them.

    ``flags`` are for :func:`dicom_quarry.config.settings.load`. ``window`` belongs to the archive, None where it may
    be asked at any hour. ``columns`` are keywords (and StudyMonth) by 0-based column. ``date_format`` is
    strptime's. ``long_accession``: accessions lose the century of their year. ``plan`` is plain or detailed
    where nothing was to be fetched, else empty. ``mail_to`` is told how a job ended, empty for nobody.
    ``notes`` are what a person should know of the translation.
    """

    flags: dict[str, str]
    window: str | None
    cohort: Path
    columns: dict[int, str]
    date_format: str
    long_accession: bool
    plan: str
    mail_to: str
    notes: tuple[str, ...]

    def settings(self, flags: Mapping[str, object] | None = None) -> Settings:
        """The settings of a job; ``flags`` (those that are None were not given) win. Raises ConfigError."""
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        merged: dict[str, object] = {**self.flags, **given}
        address = AE.remote(str(merged.pop("from")))
        merged["local"] = merged.pop("as")
        values = {"name": address.title, "address": address, "window": self.window}
        values |= {name: merged.pop(name) for name in ("retrieve",) if name in merged}
        profile = validated(ArchiveProfile, values, self.cohort)
        notify = {"notify": {"mail_to": [self.mail_to]}} if self.mail_to else {}
        return validated(Settings, {**merged, **notify, "archives": (profile,)}, self.cohort)


def read(config: Path) -> Niffler:
    """Read config.json, and the system.json that it names; raises ConfigError."""
    values = _json(config)
    system_path = config.parent / _text(values, "NifflerSystem", config, "system.json")
    system = _json(system_path)
    pattern = _text(values, "FilePath", config, "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm")
    plan = _PLANS.get(pattern.strip().upper(), "")
    flags = {
        "from": str(AE.remote(_text(system, "SrcAet", system_path))),
        "as": str(AE.local(_text(system, "QueryAet", system_path))),
        "to": str(config.parent / _text(values, "StorageFolder", config)),
    }
    if not plan:
        flags["filepath"] = pattern
    return Niffler(
        flags=flags,
        window=_window(system, system_path),
        cohort=config.parent / _text(values, "CsvFile", config),
        columns=_columns(values, config),
        date_format=_text(values, "DateFormat", config, "%Y%m%d"),
        long_accession=_flag(values, "LongAccession", config, default=False),
        plan=plan,
        mail_to=_mail_to(values, config),
        notes=(
            *_unknown(values, _CONFIG, config),
            *_unknown(system, _SYSTEM, system_path),
            *_notes(values, config, system, system_path),
        ),
    )


# -- what stands there


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration: it has no names with values")
    return values


def _text(values: Mapping[str, Any], name: str, path: Path, default: str = "") -> str:
    value = values.get(name, default)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{path}: '{name}' is missing, or no text")
    return value.strip()


def _flag(values: Mapping[str, Any], name: str, path: Path, *, default: bool) -> bool:
    """True and false are written as such, or as text."""
    value = values.get(name, default)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: '{name}' is true or false (it is {value!r})")
    return value


def _number(values: Mapping[str, Any], name: str, path: Path, default: int | None, highest: int) -> int:
    value = values.get(name, default)
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and int(text) <= highest):
        raise ConfigError(f"{path}: '{name}' is a number from 0 to {highest} (it is {value!r})")
    return int(text)


# -- what it means


def _columns(values: Mapping[str, Any], path: Path) -> dict[int, str]:
    number = _number(values, "NumberOfQueryAttributes", path, 1, len(_ORDINALS))
    if not number:
        raise ConfigError(f"{path}: 'NumberOfQueryAttributes' is 1, 2 or 3")
    columns: dict[int, str] = {}
    for ordinal in _ORDINALS[:number]:
        keyword = _text(values, f"{ordinal}Attr", path)
        if keyword != "StudyMonth" and tag_for_keyword(keyword) is None:
            raise ConfigError(f"{path}: '{ordinal}Attr' is not a DICOM keyword (it is {keyword!r})")
        index = _number(values, f"{ordinal}Index", path, None, 9999)
        if index in columns or keyword in columns.values():
            raise ConfigError(f"{path}: '{ordinal}Attr' names a column or an attribute for a second time")
        columns[index] = keyword
    return columns


def _window(system: Mapping[str, Any], path: Path) -> str | None:
    if not _flag(system, "NightlyOnly", path, default=True):
        return None
    start = _number(system, "StartHour", path, 19, 23)
    end = _number(system, "EndHour", path, 7, 24)
    text = f"{start:02d}:00-{end:02d}:00"
    try:
        time_window.parse(text, UTC)
    except ValueError as error:
        raise ConfigError(f"{path}: 'StartHour' and 'EndHour': {error}") from error
    return text


def _mail_to(values: Mapping[str, Any], path: Path) -> str:
    if not _flag(values, "SendEmail", path, default=False) or "YourEmail" not in values:
        return ""
    address = _text(values, "YourEmail", path)
    validated(Notify, {"mail_to": [address]}, path, "'YourEmail': ")
    return address


def _told_to(address: str) -> str:
    if not address:
        return "'SendEmail' is true, and nobody is named in 'YourEmail': nobody is told"
    return (
        f"{address} is told how the job ended (SendEmail), by this computer's mail server, {Notify().smtp}; "
        "[notify] in a quarry.toml, which quarry init --from-niffler makes, can name another"
    )


def _unknown(values: Mapping[str, Any], known: set[str], path: Path) -> Iterator[str]:
    for name in values:
        if name not in known:
            yield f"{path.name}: '{name}' is not known, and has no effect"


def _notes(values: Mapping[str, Any], config: Path, system: Mapping[str, Any], path: Path) -> Iterator[str]:
    receiver = AE.local(_text(system, "QueryAet", path))
    destination = _text(system, "DestAet", path, receiver.title).partition(":")[0]
    if destination != receiver.title:
        yield (
            f"{path.name}: the images went to {destination} (DestAet), a receiver of somebody else's. Quarry "
            "proves what has arrived, and so needs a receiver of its own: the archive has to know "
            f"{receiver.title} (QueryAet) as a destination, with this computer's address and port "
            f"{receiver.port}; quarry check tries it"
        )
    if _flag(values, "SendEmail", config, default=False):
        yield f"{config.name}: {_told_to(_mail_to(values, config))}"
    if "MaxNifflerProcesses" in system:
        yield (
            f"{path.name}: 'MaxNifflerProcesses' has no effect: the site's policy limits what all jobs ask "
            "for at once, see 'parallel' in docs/for-pacs-administrators.md"
        )
    for name in ("DCM4CHEBin", "NifflerID"):
        if name in system:
            yield f"{path.name}: '{name}' is not needed"
