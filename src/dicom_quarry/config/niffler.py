"""The configuration of Niffler, the former extractor (config.json and system.json), as Quarry's settings.

Paths are relative to the folder of config.json, in which Niffler was run.
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
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.layouts import LAYOUTS, resolve_layout
from dicom_quarry.config.notifications import NotificationSettings
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.toml_file import validate_model
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE

#: Values of FilePath for queries only, with the plain or the detailed list of columns.
_PLAN_MODES = {"CFIND-ONLY": "plain", "CFIND-DETAILED": "detailed"}

_ORDINALS = ("First", "Second", "Third")
_COLUMN_KEYS = {f"{ordinal}{part}" for ordinal in _ORDINALS for part in ("Attr", "Index")}
_CONFIG_KEYS = {
    "NifflerSystem",
    "StorageFolder",
    "FilePath",
    "CsvFile",
    "NumberOfQueryAttributes",
    *_COLUMN_KEYS,
    "LongAccession",
    "DateFormat",
    "SendEmail",
    "YourEmail",
}
_SYSTEM_KEYS = {
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
class NifflerConfig:
    """The content of the two files in Quarry's terms.

    ``flags`` are those of :func:`dicom_quarry.config.settings.load_settings`. ``window`` is that of the
    archive, None for any hour. ``columns`` are DICOM keywords (and StudyMonth) by 0-based column.
    ``date_format`` is strptime's. ``long_accession``: accessions lose the century of their year.
    ``plan_mode`` is plain or detailed for queries only, else empty. ``mail_to`` is the address for
    notifications, or empty. ``notes`` are remarks on the translation, for the user.
    """

    flags: dict[str, str]
    window: str | None
    cohort_file: Path
    columns: dict[int, str]
    date_format: str
    long_accession: bool
    plan_mode: str
    mail_to: str
    notes: tuple[str, ...]

    def to_settings(self, flags: Mapping[str, object] | None = None) -> Settings:
        """Return the settings of a job; ``flags`` that are not None override them. Raises ConfigError."""
        given = resolve_layout({name: value for name, value in (flags or {}).items() if value is not None})
        merged: dict[str, object] = {**self.flags, **given}
        address = AE.parse_remote(str(merged.pop("from")))
        merged["local"] = merged.pop("as")
        values = {"name": address.title, "address": address, "window": self.window}
        values |= {name: merged.pop(name) for name in ("retrieve",) if name in merged}
        profile = validate_model(ArchiveProfile, values, self.cohort_file)
        notify = {"notify": {"mail_to": [self.mail_to]}} if self.mail_to else {}
        return validate_model(Settings, {**merged, **notify, "archives": (profile,)}, self.cohort_file)


def load_niffler_config(config: Path) -> NifflerConfig:
    """Read config.json, and the system.json that it names; raise ConfigError."""
    values = _load_json(config)
    system_path = config.parent / _get_text(values, "NifflerSystem", config, "system.json")
    system = _load_json(system_path)
    pattern = _get_text(values, "FilePath", config, LAYOUTS["niffler"])
    plan_mode = _PLAN_MODES.get(pattern.strip().upper(), "")
    flags = {
        "from": str(AE.parse_remote(_get_text(system, "SrcAet", system_path))),
        "as": str(AE.parse_local(_get_text(system, "QueryAet", system_path))),
        "to": str(config.parent / _get_text(values, "StorageFolder", config)),
    }
    if not plan_mode:
        flags["filepath"] = pattern
    return NifflerConfig(
        flags=flags,
        window=_parse_window(system, system_path),
        cohort_file=config.parent / _get_text(values, "CsvFile", config),
        columns=_parse_columns(values, config),
        date_format=_get_text(values, "DateFormat", config, "%Y%m%d"),
        long_accession=_get_bool(values, "LongAccession", config, default=False),
        plan_mode=plan_mode,
        mail_to=_parse_mail_to(values, config),
        notes=(
            *_list_unknown_keys(values, _CONFIG_KEYS, config),
            *_list_unknown_keys(system, _SYSTEM_KEYS, system_path),
            *_list_notes(values, config, system, system_path),
        ),
    )


# -- reading values


def _load_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a configuration: a JSON object is expected")
    return values


def _get_text(values: Mapping[str, Any], name: str, path: Path, default: str = "") -> str:
    value = values.get(name, default)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{path}: '{name}' is missing or not text")
    return value.strip()


def _get_bool(values: Mapping[str, Any], name: str, path: Path, *, default: bool) -> bool:
    """Return a truth value, which may be written as text."""
    value = values.get(name, default)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: '{name}' must be true or false (it is {value!r})")
    return value


def _get_number(values: Mapping[str, Any], name: str, path: Path, default: int | None, highest: int) -> int:
    value = values.get(name, default)
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and int(text) <= highest):
        raise ConfigError(f"{path}: '{name}' must be a number from 0 to {highest} (it is {value!r})")
    return int(text)


# -- translating values


def _parse_columns(values: Mapping[str, Any], path: Path) -> dict[int, str]:
    number = _get_number(values, "NumberOfQueryAttributes", path, 1, len(_ORDINALS))
    if not number:
        raise ConfigError(f"{path}: 'NumberOfQueryAttributes' must be 1, 2 or 3")
    columns: dict[int, str] = {}
    for ordinal in _ORDINALS[:number]:
        keyword = _get_text(values, f"{ordinal}Attr", path)
        if keyword != "StudyMonth" and tag_for_keyword(keyword) is None:
            raise ConfigError(f"{path}: '{ordinal}Attr' is not a DICOM keyword (it is {keyword!r})")
        index = _get_number(values, f"{ordinal}Index", path, None, 9999)
        if index in columns or keyword in columns.values():
            raise ConfigError(f"{path}: '{ordinal}Attr' repeats a column or an attribute")
        columns[index] = keyword
    return columns


def _parse_window(system: Mapping[str, Any], path: Path) -> str | None:
    if not _get_bool(system, "NightlyOnly", path, default=True):
        return None
    start = _get_number(system, "StartHour", path, 19, 23)
    end = _get_number(system, "EndHour", path, 7, 24)
    text = f"{start:02d}:00-{end:02d}:00"
    try:
        time_window.parse_schedule(text, UTC)
    except ValueError as error:
        raise ConfigError(f"{path}: 'StartHour' and 'EndHour': {error}") from error
    return text


def _parse_mail_to(values: Mapping[str, Any], path: Path) -> str:
    if not _get_bool(values, "SendEmail", path, default=False) or "YourEmail" not in values:
        return ""
    address = _get_text(values, "YourEmail", path)
    validate_model(NotificationSettings, {"mail_to": [address]}, path, "'YourEmail': ")
    return address


def _describe_mail_to(address: str) -> str:
    if not address:
        return "'SendEmail' is true but 'YourEmail' is missing: no mail will be sent"
    return (
        f"{address} gets a mail when the job has ended (SendEmail), from this computer's mail server "
        f"{NotificationSettings().smtp}. To use another one, create a quarry.toml with  quarry init "
        "--from-niffler  and change [notify] in it"
    )


def _list_unknown_keys(values: Mapping[str, Any], known: set[str], path: Path) -> Iterator[str]:
    for name in values:
        if name not in known:
            yield f"{path.name}: '{name}' is unknown and has no effect"


def _list_notes(
    values: Mapping[str, Any], config: Path, system: Mapping[str, Any], path: Path
) -> Iterator[str]:
    receiver = AE.parse_local(_get_text(system, "QueryAet", path))
    destination = _get_text(system, "DestAet", path, receiver.title).partition(":")[0]
    if destination != receiver.title:
        yield (
            f"{path.name}: Niffler's images went to {destination} (DestAet), a separate receiver. Quarry "
            "checks every image that arrives, and needs its own receiver. Ask the PACS team to register "
            f"{receiver.title} (QueryAet) as a destination, with this computer's address and port "
            f"{receiver.port}. quarry check tests it"
        )
    if _get_bool(values, "SendEmail", config, default=False):
        yield f"{config.name}: {_describe_mail_to(_parse_mail_to(values, config))}"
    if "MaxNifflerProcesses" in system:
        yield (
            f"{path.name}: 'MaxNifflerProcesses' has no effect. The site's policy limits the retrievals of "
            "all jobs, see 'parallel' in docs/for-pacs-administrators.md"
        )
    for name in ("DCM4CHEBin", "NifflerID"):
        if name in system:
            yield f"{path.name}: '{name}' is not needed"
