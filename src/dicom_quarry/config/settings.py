"""Settings of a job, from quarry.toml and the options of a command; validated once, then frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
)

from dicom_quarry.config.archive_profile import (
    ArchiveProfile,
    ConcurrencyLimit,
    LocalAE,
    parse_address,
)
from dicom_quarry.config.cluster import ClusterSettings
from dicom_quarry.config.credentials import AbsolutePath, FrozenModel, TlsFiles
from dicom_quarry.config.exclusion_files import (
    ExclusionFiles,
    Texts,
    join_exclusion_files,
)
from dicom_quarry.config.layouts import LAYOUTS, resolve_layout
from dicom_quarry.config.notifications import CommandLine, NotificationSettings
from dicom_quarry.config.toml_file import (
    FILE_NAME,
    normalize_keys,
    read_toml,
    validate_model,
    validate_table,
)
from dicom_quarry.errors import ConfigError, LedgerError
from dicom_quarry.model import AE, BaseUri
from dicom_quarry.system.durations import Duration
from dicom_quarry.system.permissions import Permissions, make_permissions, parse_file_mode

DEFAULT_FILEPATH = LAYOUTS["niffler"]
DEFAULT_LOCAL = "QUARRY:11112"


def _check_file_mode(text: str) -> str:
    parse_file_mode(text)
    return text


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
    merged["exclude"] = join_exclusion_files(table.get("exclude", []), given.get("exclude", []), source)
    chosen = merged.pop("from", None)
    if "archives" in merged:
        raise ConfigError(f"{source}: 'archives' is not a setting; write from = \"main,old\"")
    if "as" in merged:
        merged["local"] = merged.pop("as")
    if chosen is None:
        chosen = _choose_archive(list(archives), source)
    if "to" not in merged:
        raise ConfigError("which output folder? Give one with --to, or 'to' in quarry.toml")
    for name, model in _TABLES.items():
        if isinstance(merged.get(name), dict):
            merged[name] = validate_table(model, merged[name], source, name)
    profiles = [_load_profile(name.strip(), archives, source, for_each) for name in str(chosen).split(",")]
    return validate_model(Settings, {**merged, "archives": profiles}, source)


def _choose_archive(names: Sequence[str], source: Path) -> str:
    """Return the archive of a file with one alone; raise ConfigError."""
    if len(names) == 1:
        return names[0]
    if names:
        raise ConfigError(
            f"which archive? {source} has {', '.join(names)}: name one, as in --from {names[0]}"
        )
    raise ConfigError(
        "which archive? Give --from AET@HOST:PORT or --from https://HOST/PATH, "
        "or 'from' and [archive.main] in quarry.toml"
    )


def parse_recorded_settings(metadata: Mapping[str, str]) -> Settings:
    """Return the settings in a job's record; raise LedgerError if they are not of this version."""
    try:
        return Settings.model_validate_json(metadata["settings"])
    except (KeyError, ValidationError) as error:
        raise LedgerError(
            "the settings in the record of this job cannot be read: another version of Quarry wrote them, or "
            "they were changed. Use that version"
        ) from error


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
