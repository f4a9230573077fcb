"""Settings of a job: quarry.toml, then flags; validated once, frozen afterwards."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE

DEFAULT_FILEPATH = "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm"
DEFAULT_LOCAL = "QUARRY:11112"
FILE_NAME = "quarry.toml"

Remote = Annotated[AE, BeforeValidator(lambda value: AE.remote(value) if isinstance(value, str) else value)]
Local = Annotated[AE, BeforeValidator(lambda value: AE.local(value) if isinstance(value, str) else value)]
T = TypeVar("T", bound=BaseModel)

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class TlsFiles(_Frozen):
    """PEM files, ``[tls]`` in quarry.toml: our certificate with its key, and the authority over others'.

    ``hostname`` False is for archives whose certificates name no host.
    """

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    hostname: bool = True


class ArchiveProfile(_Frozen):
    """How one archive is reached and treated; ``[archive.NAME]`` in quarry.toml. Times are in seconds.

    ``query_timeout``: a query that is silent for so long is lost. ``silence``: so is a retrieval in which
    neither a response nor an instance came. ``settle``: how long after the last arrival stores may still be
    on their way once the archive has said that it is done. ``senders``: networks that instances may come
    from, where that is not the archive's own address. ``tls``: for our associations, or both ways.
    """

    name: str
    address: Remote
    model: Literal["study", "patient"] = "study"
    query_timeout: Seconds = 120
    silence: Seconds = 600
    settle: Seconds = 10
    senders: tuple[IPv4Network | IPv6Network, ...] = ()
    tls: Literal["none", "query", "both"] = "none"


class Settings(_Frozen):
    """Everything that a job is run with."""

    archive: ArchiveProfile
    to: Path
    local: Local = Field(default=AE.local(DEFAULT_LOCAL))
    state: Path | None = None
    tls: TlsFiles = TlsFiles()
    filepath: str = DEFAULT_FILEPATH
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    allow_several_patients: bool = False
    whole_patients: bool = False
    skip_bad_rows: bool = False
    keep_free: Annotated[float, Field(ge=0)] = 1.0

    @property
    def keep_free_bytes(self) -> int:
        """Room on the disk that the job leaves; ``keep_free`` is in GB."""
        return int(self.keep_free * 1e9)


def load(path: Path | None, flags: Mapping[str, object]) -> Settings:
    """Settings from a quarry.toml (the one named, else the one in the current folder) and flags, which win.

    Flags that are None were not given. Raises ConfigError naming the setting, what is wrong, what to write.
    """
    source = path or Path(FILE_NAME)
    table = _read(source) if path or source.is_file() else {}
    archives = table.pop("archive", {})
    if not isinstance(archives, dict) or not all(isinstance(one, dict) for one in archives.values()):
        raise ConfigError(f"{source}: archives stand in tables of their own, such as [archive.main]")
    # The flags' spellings: `--from` names the archive, `--as` the receiver.
    merged = {**table, **{name: value for name, value in flags.items() if value is not None}}
    chosen = merged.pop("from", None)
    if "as" in merged:
        merged["local"] = merged.pop("as")
    if chosen is None:
        raise ConfigError(
            "which archive? give --from AET@HOST:PORT, or 'from' and [archive.main] in quarry.toml"
        )
    if "to" not in merged:
        raise ConfigError("where to? give a folder with --to, or 'to' in quarry.toml")
    profile = _profile(str(chosen), archives, source)
    return _validated(Settings, {**merged, "archive": profile}, source)


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return {name.replace("-", "_"): value for name, value in table.items()}


def _profile(chosen: str, archives: dict[str, dict[str, Any]], source: Path) -> ArchiveProfile:
    if chosen in archives:
        values = {name.replace("-", "_"): value for name, value in archives[chosen].items()}
        return _validated(ArchiveProfile, {**values, "name": chosen}, source, f"[archive.{chosen}] ")
    if "@" not in chosen:
        known = ", ".join(archives) or "none"
        raise ConfigError(
            f"no archive is called '{chosen}' (known in {source}: {known}); or write AET@HOST:PORT"
        )
    address = AE.remote(chosen)
    return ArchiveProfile(name=address.title, address=address)


def _validated(model: type[T], values: Mapping[str, object], source: Path, where: str = "") -> T:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"]).replace("_", "-") or "settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(name.replace("_", "-") for name in model.model_fields))
            raise ConfigError(f"{source}: {where}'{setting}' is not a setting; there are {known}") from error
        raise ConfigError(f"{where}{setting}: {first['msg']} (it is {first['input']!r})") from error
