"""The files that may name commands, or a database: those of this user or root, which no other can change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dicom_quarry.errors import ConfigError
from dicom_quarry.system.ownership import foreign_reason

#: The settings that are commands.
_COMMANDS = ("on_complete", "on_finish", "token_command", "commands")


def reject_foreign_commands(
    values: Mapping[str, object], source: Path, found: os.stat_result, *, trust_owner: bool
) -> None:
    """Raise ConfigError if the settings of a file name a command, and another user could have written them.

    ``found`` is the state of the open file ``source``, or of the folder that it is in.
    """
    reason = "" if trust_owner else foreign_reason(found, root_is_trusted=True)
    reject_untrusted_commands(values, str(source), reason)


def reject_foreign_database(
    values: Mapping[str, object], source: Path, found: os.stat_result, *, trust_owner: bool
) -> None:
    """Raise ConfigError if a settings file names a database, and another user could have written it."""
    table = values.get("cluster")
    reason = "" if trust_owner else foreign_reason(found, root_is_trusted=True)
    if reason and isinstance(table, Mapping) and table.get("ledger"):
        raise ConfigError(
            f"{source} names a database ([cluster] ledger), but {reason}: your password is sent only to a "
            "database whose name is in a file that you or root own and no other user can change. Copy the "
            "file to a folder of yours, or take the lines out; or, if you trust everybody who can write to "
            "it, add --trust-owner to quarry extract"
        )


def reject_untrusted_commands(values: Mapping[str, object], source: str, reason: str) -> None:
    """Raise ConfigError if there is a ``reason`` not to trust the source, and the settings name a command."""
    commands = [name.replace("_", "-") for name in _find_commands(values)] if reason else []
    if commands:
        raise ConfigError(
            f"{source} has a command ({', '.join(dict.fromkeys(commands))}), but {reason}: Quarry runs "
            "commands only from files that you or root own and no other user can change. Copy the file to a "
            "folder of yours, or take the command out; or, if you trust everybody who can write to it, add "
            "--trust-owner"
        )


def _find_commands(values: object) -> Iterator[str]:
    """Yield the names of the settings that are commands, at any depth."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name in _COMMANDS and value:
                yield name
            yield from _find_commands(value)
    elif isinstance(values, list | tuple):
        for one in values:
            yield from _find_commands(one)
