"""The options of the functions: named as the flags of the command, typed, and checked before a job begins."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

from dicom_quarry.errors import ConfigError

#: The number of studies of a row with ``yes``: any that a patient has.
UNLIMITED_STUDIES = 1_000_000

#: A path as text or as a pathlib.Path.
StrPath = str | os.PathLike[str]
#: One text or several.
Texts = str | Sequence[str]
#: ``"NAME=VALUE"``, several of them, or a mapping.
Pairs = str | Sequence[str] | Mapping[str, str | int | Sequence[str]]


class PlanOptions(TypedDict, total=False):
    """Options of ``plan``: which studies, and how the table is read."""

    map: Pairs
    ignore_column: Texts
    verbatim: Texts
    hidden_rows: Literal["take", "skip"] | None
    where: Pairs
    rewrite: Texts
    pad: Pairs
    exclude: StrPath | Sequence[StrPath]
    date_format: str
    allow_wildcards: bool
    long_identifiers: bool
    series: Pairs
    series_not: Pairs
    min_instances: int | None
    allow_several_patients: bool
    whole_patients: bool
    max_studies: int | None
    no_diagnosis: bool
    trust_owner: bool
    plan_age: str
    diagnosis: bool
    tls: Mapping[str, object]


class RetryOptions(TypedDict, total=False):
    """Options of ``retry``: those that the advice of an outcome names. They hold for later runs, too."""

    allow_several_patients: bool
    max_studies: int | None
    yes: bool
    accept_mismatch: bool
    retrieve: Literal["auto", "move", "get", "wado"] | None
    receiver: str | None


class ExtractOptions(PlanOptions, total=False):
    """Options of ``extract``; those without a flag are settings of quarry.toml."""

    retrieve: Literal["auto", "move", "get", "wado"] | None
    state: StrPath | None
    job: str | None
    cluster: Mapping[str, object]
    file_mode: str | None
    group: str | None
    parallel: int | None
    give_up_after: str | None
    protocol: str
    filepath: str
    layout: str | None
    portable_names: bool
    yes: bool
    accept_mismatch: bool
    skip_bad_rows: bool
    keep_free: float
    room: float | None
    html: bool
    notify: Mapping[str, object]
    on_complete: Texts | None
    on_complete_env: Texts
    on_complete_parallel: int
    on_complete_limit: str
    on_complete_patience: str
    sign: StrPath | None
    metrics: StrPath | None


#: Names that are reserved words of Python, or have another name here.
_OTHER_NAMES = {"from": "archive", "as": "receiver", "local": "receiver", "config_file": "config"}

_LISTS = ("map", "ignore_column", "verbatim", "where", "rewrite", "pad", "series", "series_not")
_ARGUMENTS = ("archive", "to", "receiver", "config", "observer", "progress")


def make_flags(
    function: str,
    options: Mapping[str, object],
    known: type[PlanOptions],
    *,
    archive: Texts | None,
    to: StrPath | None,
    receiver: str | None,
) -> dict[str, object]:
    """Return the flags for ``load_settings``; raise ConfigError for an option that does not exist.

    ``function`` is for the message, ``known`` has the options of the function.
    """
    names = known.__annotations__.keys() | (
        PlanOptions.__annotations__.keys() if known is not PlanOptions else frozenset()
    )
    for name in options:
        if name not in names:
            raise ConfigError(_describe_unknown(function, name, [*names, *_ARGUMENTS]))
    flags: dict[str, object] = {
        "from": _join_archives(archive),
        "to": None if to is None else _path(to, "to"),
        "as": _text(receiver, "receiver", '"QUARRY:11112"'),
    }
    for name, value in options.items():
        if name in ("yes", "no_diagnosis"):
            check_bools(**{name: value})
        if name in _LISTS:
            value = _as_list(name, value)
        elif name in ("state", "exclude", "sign", "metrics"):
            value = _expand_all(value)
        flags[name] = value
    if flags.pop("yes", False):
        flags["max_studies"] = UNLIMITED_STUDIES
    if flags.pop("no_diagnosis", False):
        flags["diagnosis"] = False
    return flags


def make_retry_flags(options: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that a retry changes; raise ConfigError for an option that it does not have."""
    names = RetryOptions.__annotations__.keys()
    for name in options:
        if name not in names:
            raise ConfigError(_describe_unknown("retry", name, [*names]))
    flags = {name: value for name, value in options.items() if value is not None and value is not False}
    if flags.pop("yes", False):
        flags["max_studies"] = UNLIMITED_STUDIES
    if "receiver" in flags:
        flags["local"] = flags.pop("receiver")
    return flags


def make_path(value: StrPath, name: str) -> Path:
    """Return the path that a user gives as ``name``; raise ConfigError for another type."""
    return Path(_path(value, name))


def _describe_unknown(function: str, name: str, names: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name.replace("-", "_").lower(), names, n=1, cutoff=0.6)
    meant = _OTHER_NAMES.get(name) or next(iter(similar), "")
    if meant:
        return f"{function}() has no option '{name}'. Did you mean {meant}?"
    return f"{function}() has no option '{name}'. Its options are: {', '.join(sorted(names))}"


def _join_archives(archive: object) -> str | None:
    example = '"PACS@10.1.2.3:104", "https://HOST/PATH" or a name from quarry.toml'
    if isinstance(archive, list | tuple):
        return ",".join(str(_text(one, "archive", example)) for one in archive)
    return _text(archive, "archive", example)


def _text(value: object, name: str, example: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name}: write a text such as {example} (it is {value!r})")
    return value


def _path(value: object, name: str) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f'{name}: write a path such as "out", or a pathlib.Path (it is {value!r})')
    return _expand(value)


def _expand(value: str | os.PathLike[str]) -> str:
    """Return a path with the user's home folder for ``~``: no shell has replaced it."""
    return os.path.expanduser(os.fsdecode(value))  # noqa: PTH111 - Path removes a final slash


def _expand_all(value: object) -> object:
    if isinstance(value, str | os.PathLike):
        return _expand(value)
    if isinstance(value, list | tuple):
        return [_expand_all(one) for one in value]
    return value


def check_bools(**values: object) -> None:
    """Raise ConfigError for an argument that is neither True nor False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: write True or False (it is {value!r})")


def check_number(name: str, value: object) -> None:
    """Raise ConfigError for an argument that is neither None nor a number."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"{name}: write a number, such as 60 (it is {value!r})")


def check_texts(**values: object) -> None:
    """Raise ConfigError for an argument that is no text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise ConfigError(f'{name}: write a text such as "4711" (it is {value!r})')


def _as_list(name: str, value: object) -> object:
    """Return a text as a list of one, and a mapping as texts ``NAME=VALUE``."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [f"{key}={_pair_text(name, key, one)}" for key, one in value.items()]
    return value


def _pair_text(name: str, key: object, value: object) -> str:
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    raise ConfigError(f"{name}: write a text, or a list of texts, for {key!r} (it is {value!r})")
