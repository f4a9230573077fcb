"""Settings of a job, from quarry.toml and the options of a command; validated once, then frozen."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import UTC
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from dicom_quarry.config.cluster import ClusterSettings
from dicom_quarry.config.command_sources import reject_foreign_commands, reject_foreign_database
from dicom_quarry.config.credentials import AbsolutePath, FrozenModel, HttpSettings, TlsFiles
from dicom_quarry.config.layouts import LAYOUTS, resolve_layout
from dicom_quarry.config.notifications import CommandLine, NotificationSettings
from dicom_quarry.config.time_window import Schedule, load_time_zone, parse_schedule
from dicom_quarry.config.type_words import describe_type
from dicom_quarry.errors import ConfigError, LedgerError
from dicom_quarry.model import AE, BaseUri, InstanceInfo, Transport
from dicom_quarry.system.durations import UNIT_SECONDS, Duration
from dicom_quarry.system.permissions import Permissions, make_permissions, parse_file_mode

DEFAULT_FILEPATH = LAYOUTS["niffler"]
DEFAULT_LOCAL = "QUARRY:11112"
FILE_NAME = "quarry.toml"

RemoteAE = Annotated[
    AE, BeforeValidator(lambda value: AE.parse_remote(value) if isinstance(value, str) else value)
]
LocalAE = Annotated[
    AE, BeforeValidator(lambda value: AE.parse_local(value) if isinstance(value, str) else value)
]
DicomWebUri = Annotated[
    BaseUri, BeforeValidator(lambda value: BaseUri.parse(value) if isinstance(value, str) else value)
]
#: A DICOM address or a DICOMweb address, recognised by ``://``.
ArchiveAddress = Annotated[
    AE | BaseUri, BeforeValidator(lambda value: parse_address(value) if isinstance(value, str) else value)
]
T = TypeVar("T", bound=BaseModel)

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ConcurrencyLimit = Annotated[int, Field(ge=1, le=16)]


def parse_address(text: str) -> AE | BaseUri:
    """Parse ``AET@HOST:PORT`` or ``https://HOST/PATH``; raise ConfigError."""
    return BaseUri.parse(text) if "://" in text else AE.parse_remote(text)


def _check_window(text: str) -> str:
    parse_schedule(text, UTC)
    return text


def _check_file_mode(text: str) -> str:
    parse_file_mode(text)
    return text


def _check_time_zone(name: str) -> str:
    load_time_zone(name)
    return name


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


def _check_after_window(text: str) -> str:
    if text != "finish" and not re.fullmatch(r"\d+[smhd]", text, re.ASCII):
        raise ValueError("write finish, or a duration such as 30m or 2h")
    return text


class Limits(FrozenModel):
    """Limits on the requests to an archive: the time window, the rates, and the retrievals at once.

    ``window`` has the grammar of :mod:`dicom_quarry.config.time_window`, in ``time_zone`` or else that of the
    host. A retrieval that runs when the window closes is finished, or stopped ``after_window``. ``parallel``
    limits the retrievals at once, each of one study. ``max_queries_per_row`` limits the queries for the
    studies of one row: an answer that the archive cuts at a limit is queried again in parts.
    """

    window: Annotated[str, AfterValidator(_check_window)] | None = None
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] | None = None
    after_window: Annotated[str, AfterValidator(_check_after_window)] = "finish"
    parallel: ConcurrencyLimit | None = None
    queries_per_second: Rate | None = None
    studies_per_hour: Rate | None = None
    megabytes_per_second: Rate | None = None
    max_queries_per_row: Annotated[int, Field(ge=1, le=1000)] | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule of the window; always open without one."""
        return (
            Schedule() if self.window is None else parse_schedule(self.window, load_time_zone(self.time_zone))
        )

    @property
    def grace_seconds(self) -> float:
        """Seconds that running retrievals may continue after the window has closed."""
        if self.after_window == "finish":
            return float("inf")
        return int(self.after_window[:-1]) * UNIT_SECONDS[self.after_window[-1]]


class ArchiveProfile(Limits):
    """The profile of one archive; ``[archive.NAME]`` in quarry.toml. Times are in seconds.

    ``address`` is its application entity, ``dicomweb`` the URL of its web services: one of them, or both.
    ``query_timeout`` ends a query without an answer, ``silence`` a retrieval without a response or an
    instance. ``settle`` is the wait for late instances after the archive reports its success.
    ``senders``: networks from which instances may come, if not from the archive's address. ``tls`` is for
    our associations (query), or those in both directions; ``tls_profile`` is its profile (PS3.15).
    ``merged_ids``: accept images with another Patient ID than that in the archive's answer, or treat them
    as a mismatch. ``character_set`` encodes keys beyond ASCII. ``result_cap`` is the largest number of
    answers that the archive gives. ``retrieve`` is the transport; ``auto`` uses the next one if one
    delivers nothing. ``nearline_patience`` is the time that a study on tape may take.
    """

    name: str
    address: RemoteAE | None = None
    dicomweb: DicomWebUri | None = None
    http: HttpSettings = HttpSettings()
    model: Literal["study", "patient"] = "study"
    query_timeout: Seconds = 120
    silence: Seconds = 600
    settle: Seconds = 10
    senders: tuple[IPv4Network | IPv6Network, ...] = ()
    tls: Literal["none", "query", "both"] = "none"
    tls_profile: Literal["bcp195", "aes"] = "bcp195"
    merged_ids: Literal["mismatch", "accept"] = "mismatch"
    character_set: str = "ISO_IR 192"
    result_cap: Annotated[int, Field(ge=1)] | None = None
    lowest_level: Literal["image", "series", "study"] = "image"
    relational: bool | None = None
    move_identifiers: Literal["uids", "patient"] = "uids"
    nearline_patience: Duration = 4 * 3600.0
    retrieve: Literal["auto", "move", "get", "wado"] = "auto"
    _allowed: frozenset[Transport] = PrivateAttr(default=frozenset(Transport))

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if not self.addresses:
            raise ValueError('write address = "AET@HOST:PORT", dicomweb = "https://HOST/PATH", or both')
        if self.retrieve == "auto":
            return self
        if self.retrieve == "wado" and self.dicomweb is None:
            raise ValueError('retrieve = "wado" needs dicomweb = "https://HOST/PATH"')
        if self.retrieve != "wado" and self.address is None:
            raise ValueError(f'retrieve = "{self.retrieve}" needs address = "AET@HOST:PORT"')
        return self

    @property
    def addresses(self) -> tuple[AE | BaseUri, ...]:
        """The addresses of the archive, at least one."""
        return tuple(place for place in (self.address, self.dicomweb) if place is not None)

    @property
    def description(self) -> str:
        """The addresses as text."""
        return " and ".join(map(str, self.addresses))

    @property
    def dimse_ae(self) -> AE:
        """The application entity, for DIMSE; raises ConfigError if there is none."""
        if self.address is None:
            raise ConfigError(f'the archive {self.name} has no address = "AET@HOST:PORT"')
        return self.address

    @property
    def dicomweb_uri(self) -> BaseUri:
        """The URL of the web services; raises ConfigError if there is none."""
        if self.dicomweb is None:
            raise ConfigError(f'the archive {self.name} has no dicomweb = "https://HOST/PATH"')
        return self.dicomweb

    @property
    def transports(self) -> tuple[Transport, ...]:
        """The transports for instances, in the order in which they are tried; none that the site forbids."""
        return tuple(one for one in self._wanted_transports if one in self._allowed)

    @property
    def _wanted_transports(self) -> tuple[Transport, ...]:
        if self.retrieve != "auto":
            return (Transport(self.retrieve),)
        over_http = (Transport.WADO,) if self.dicomweb is not None else ()
        return (*over_http, Transport.MOVE, Transport.GET) if self.address is not None else over_http

    def allows(self, transport: Transport) -> bool:
        """Return whether the site allows a transport."""
        return transport in self._allowed

    def restricted_to(self, allowed: frozenset[Transport]) -> Self:
        """Return the profile without the transports that the site does not allow; they are not recorded."""
        restricted = self.model_copy()
        restricted._allowed = allowed
        return restricted

    @property
    def needs_receiver(self) -> bool:
        """True if the archive sends instances to our receiver, as it does for C-MOVE."""
        return Transport.MOVE in self.transports

    def is_sender_of(self, arrival: InstanceInfo) -> bool:
        """Return whether this archive sent an instance: under its AE title, or over its web services."""
        by_title = self.address is not None and self.address.title == arrival.calling_ae
        return by_title or str(self.dicomweb) == arrival.peer


#: The beginning of the name of a command, where a command may be given, too.
COMMAND_PREFIX = "command:"


class Settings(FrozenModel):
    """The settings of a job."""

    archives: Annotated[tuple[ArchiveProfile, ...], Field(min_length=1)]
    to: Path
    local: LocalAE = Field(default=AE.parse_local(DEFAULT_LOCAL))
    state: Path | None = None
    file_mode: Annotated[str, AfterValidator(_check_file_mode)] | None = None
    group: Annotated[str, Field(min_length=1)] | None = None
    tls: TlsFiles = TlsFiles()
    filepath: str = DEFAULT_FILEPATH
    portable_names: bool = False
    parallel: ConcurrencyLimit = 1
    allow_several_patients: bool = False
    whole_patients: bool = False
    accept_mismatch: bool = False
    skip_bad_rows: bool = False
    allow_wildcards: bool = False
    map: tuple[str, ...] = ()
    ignore_column: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()
    hidden_rows: Literal["take", "skip"] | None = None
    long_identifiers: bool = False
    where: tuple[str, ...] = ()
    rewrite: tuple[str, ...] = ()
    pad: tuple[str, ...] = ()
    exclude: ExclusionFiles = ()
    protocol: Annotated[str, Field(max_length=200)] = ""
    date_format: str = ""
    series: tuple[str, ...] = ()
    series_not: tuple[str, ...] = ()
    min_instances: int | None = None
    max_studies: Annotated[int, Field(ge=1)] = 10
    diagnosis: bool = True
    html: bool = True
    keep_free: Annotated[float, Field(ge=0)] = 1.0
    room: Annotated[float, Field(gt=0)] | None = None
    give_up_after: Duration | None = None
    plan_age: Duration = 86_400.0
    notify: NotificationSettings = NotificationSettings()
    #: The commands of this computer by name, which no record has: ``on_complete`` may name one.
    commands: dict[str, CommandLine] = Field(default_factory=dict, exclude=True)
    on_complete: CommandLine | None = None
    on_complete_parallel: ConcurrencyLimit = 1
    on_complete_limit: Annotated[Duration, Field(gt=0)] = 6 * 3600.0
    on_complete_patience: Duration = 3600.0
    on_complete_env: Texts = ()
    trust_owner: bool = False
    sign: AbsolutePath | None = None
    metrics: AbsolutePath | None = None
    cluster: ClusterSettings = ClusterSettings()
    job: str | None = None

    @property
    def command_name(self) -> str:
        """The name of the command for complete studies, empty if the setting is a command itself."""
        text = self.on_complete or ""
        return text.removeprefix(COMMAND_PREFIX) if text.startswith(COMMAND_PREFIX) else ""

    @property
    def on_complete_command(self) -> str | None:
        """The command for complete studies; None if there is none, or its name is not in ``commands``."""
        return self.commands.get(self.command_name) if self.command_name else self.on_complete

    @property
    def permissions(self) -> Permissions:
        """The permissions of the job's files; raises ConfigError if this user cannot use the group."""
        return make_permissions(self.file_mode, self.group)

    @property
    def keep_free_bytes(self) -> int:
        """The bytes that the job leaves free on the disk; ``keep_free`` is in GB."""
        return int(self.keep_free * 1e9)

    @property
    def room_bytes(self) -> int | None:
        """The bytes that the job's files may take, None for any number; ``room`` is in GB."""
        return None if self.room is None else int(self.room * 1e9)


def load_commands(path: Path) -> dict[str, str]:
    """Return the commands by name of a settings file, none without a file; raise ConfigError."""
    table = read_toml(path).get("commands", {}) if path.is_file() else {}
    return validate_model(_Commands, {"commands": table}, path).commands


class _Commands(FrozenModel):
    commands: dict[str, CommandLine]


#: The tables of quarry.toml, besides those of the archives, whose names have dashes.
_TABLES: dict[str, type[BaseModel]] = {"notify": NotificationSettings, "cluster": ClusterSettings}


def load_settings(
    path: Path | None, flags: Mapping[str, object], defaults: Mapping[str, object] | None = None
) -> Settings:
    """Load the settings from ``path``, else from quarry.toml in the current folder; ``flags`` override them.

    A flag that is None was not given. ``defaults`` are used for settings that neither has. Raises ConfigError
    with the setting, the problem and the remedy.
    """
    source = path or Path(FILE_NAME)
    trusted = bool(flags.get("trust_owner"))  # a file cannot make itself trusted
    table = read_toml(source, accept_commands=trusted) if path or source.is_file() else {}
    archives = table.pop("archive", {})
    if not isinstance(archives, dict) or not all(isinstance(one, dict) for one in archives.values()):
        raise ConfigError(f"{source}: each archive needs a table of its own, such as [archive.main]")
    # Named as the flags are: `--from` is the archive, `--as` the receiver.
    given = resolve_layout({name: value for name, value in flags.items() if value is not None})
    # The flag applies to every archive of the job; the file has a setting for each.
    for_each = {"retrieve": given.pop("retrieve")} if "retrieve" in given else {}
    merged = {**(defaults or {}), **resolve_layout(table, str(source)), **given}
    # A flag adds to the lists of the file, as a list that is dropped by mistake would harm patients.
    merged["exclude"] = _join_exclusion_files(table.get("exclude", []), given.get("exclude", []), source)
    chosen = merged.pop("from", None)
    if "archives" in merged:
        raise ConfigError(f"{source}: 'archives' is not a setting; write from = \"main,old\"")
    if "as" in merged:
        merged["local"] = merged.pop("as")
    if chosen is None:
        raise ConfigError(
            "which archive? Give --from AET@HOST:PORT or --from https://HOST/PATH, "
            "or 'from' and [archive.main] in quarry.toml"
        )
    if "to" not in merged:
        raise ConfigError("which output folder? Give one with --to, or 'to' in quarry.toml")
    for name, model in _TABLES.items():
        if isinstance(merged.get(name), dict):
            merged[name] = validate_table(model, merged[name], source, name)
    profiles = [_load_profile(name.strip(), archives, source, for_each) for name in str(chosen).split(",")]
    return validate_model(Settings, {**merged, "archives": profiles}, source)


def _join_exclusion_files(in_file: object, given: object, source: Path) -> list[ExclusionFile]:
    """Return the lists of the file and of the options; a file's decisions hold for the option, too."""
    found = parse_exclusion_files(in_file, source)
    paths = {one.file for one in found}
    return [*found, *(one for one in parse_exclusion_files(given, source) if one.file not in paths)]


def parse_recorded_settings(metadata: Mapping[str, str]) -> Settings:
    """Return the settings in a job's record; raise LedgerError if they are not of this version."""
    try:
        return Settings.model_validate_json(metadata["settings"])
    except (KeyError, ValidationError) as error:
        raise LedgerError(
            "the settings in the record of this job cannot be read: another version of Quarry wrote them, or "
            "they were changed. Use that version"
        ) from error


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


def _load_profile(
    chosen: str, archives: dict[str, dict[str, Any]], source: Path, flags: Mapping[str, object]
) -> ArchiveProfile:
    """Return the profile of the chosen archive; ``flags`` override the settings of its table."""
    if chosen in archives:
        values = {**normalize_keys(archives[chosen]), "name": chosen, **flags}
        if isinstance(values.get("http"), dict):
            values["http"] = normalize_keys(values["http"])
        return validate_model(ArchiveProfile, values, source, f"[archive.{chosen}] ")
    if "@" not in chosen and "://" not in chosen:
        known = ", ".join(archives) or "none"
        raise ConfigError(
            f"no archive is called '{chosen}' (known in {source}: {known}). Use a known name, AET@HOST:PORT "
            "or https://HOST/PATH"
        )
    address = parse_address(chosen)
    if isinstance(address, BaseUri):
        return validate_model(ArchiveProfile, {"name": address.host, "dicomweb": address, **flags}, source)
    return validate_model(ArchiveProfile, {"name": address.title, "address": address, **flags}, source)


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
