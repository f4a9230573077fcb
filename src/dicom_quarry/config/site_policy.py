"""The site's policy: limits that an administrator sets for everybody, and that users can only tighten.

Its file is named here and nowhere else: no flag and no variable leads around it. It has the limits of an
archive in quarry.toml; at its top they hold over everything that Quarry does on this host, and in
``[archive."AET@HOST:PORT"]`` or ``[archive."https://HOST/PATH"]`` over everything that goes to that archive,
all jobs and users together.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from dicom_quarry.config.settings import (
    ArchiveAddress,
    ArchiveProfile,
    FilePaths,
    Limits,
    normalize_keys,
    read_toml,
    validate_model,
)
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE, BaseUri

SITE_POLICY_FILE = Path("/etc/quarry/site.toml")

#: Of the limits at the top of the file; an archive's are counted under its address.
HOST_WIDE = "all"


class SitePolicy(Limits):
    """What site.toml says. ``archives``: the only ones that may be asked. ``shared``: a folder on this host
    in which the jobs of all users count together. ``exclude``: lists of what nobody may take.
    """

    archives: tuple[ArchiveAddress, ...] | None = None
    shared: Path = Path("/run/lock/quarry")
    exclude: FilePaths = ()
    archive: dict[ArchiveAddress, Limits] = Field(default_factory=dict)

    def check_archive(self, profile: ArchiveProfile) -> None:
        """Raises ConfigError if the archive is not allowed."""
        if self.archives is None:
            return
        for address in profile.addresses:
            if not any(_is_same_address(one, address) for one in self.archives):
                allowed = ", ".join(map(str, self.archives)) or "none"
                raise ConfigError(
                    f"{SITE_POLICY_FILE}: this site does not allow the archive {address}; allowed: {allowed}. "
                    "Its administrator can add it to 'archives' there"
                )

    def limits_for(self, profile: ArchiveProfile) -> dict[str, Limits]:
        """Limits that hold for an archive, by the name under which the host's jobs count together.

        A title does not tell archives apart: many answer to any. Nor does the port tell DIMSE from HTTP: who
        is limited in one is not free in the other.
        """
        found: dict[str, Limits] = {HOST_WIDE: self}
        for address, limits in self.archive.items():
            if any(_limits_apply(address, wanted) for wanted in profile.addresses):
                found[re.sub(r"[^A-Za-z0-9.]", "_", f"{address.host}.{address.port}")] = limits
        return found

    def describe_limits(self, profile: ArchiveProfile) -> str:
        """Which limits hold for an archive, in a sentence; empty if there are none."""
        parts = [part for limits in self.limits_for(profile).values() for part in _describe_limits(limits)]
        if not parts:
            return ""
        return f"this site allows, over all jobs of this computer together ({SITE_POLICY_FILE}): {'; '.join(parts)}"


def load_site_policy() -> SitePolicy:
    """The policy of this host, without limits where there is no file; raises ConfigError.

    A file that cannot be read stops the job: what it forbids must not become allowed.
    """
    try:
        values = read_toml(SITE_POLICY_FILE)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return SitePolicy()
        raise
    try:
        return validate_model(SitePolicy, _inherit_time_zone(values), SITE_POLICY_FILE)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(
            message if message.startswith(str(SITE_POLICY_FILE)) else f"{SITE_POLICY_FILE}: {message}"
        ) from error


def _inherit_time_zone(values: dict[str, Any]) -> dict[str, Any]:
    """The time zone at the top is that of the archives' windows, too."""
    zone = {name: values[name] for name in ("time_zone",) if name in values}
    archives = values.get("archive")
    if not isinstance(archives, dict) or not all(isinstance(one, dict) for one in archives.values()):
        return values
    return {**values, "archive": {name: {**zone, **normalize_keys(one)} for name, one in archives.items()}}


def _is_same_address(allowed: AE | BaseUri, wanted: AE | BaseUri) -> bool:
    return replace(allowed, host=allowed.host.casefold()) == replace(wanted, host=wanted.host.casefold())


def _limits_apply(limited: AE | BaseUri, wanted: AE | BaseUri) -> bool:
    """Whether limits for one hold for the other."""
    comparable = type(limited) is type(wanted)
    return (limited.port == wanted.port or not comparable) and _is_same_host(limited.host, wanted.host)


def _is_same_host(one: str, other: str) -> bool:
    """Whether two names lead to one computer: another spelling is no way around its limits."""
    return one.casefold() == other.casefold() or not _ip_addresses(one).isdisjoint(_ip_addresses(other))


def _ip_addresses(host: str) -> set[str]:
    try:
        return {str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _describe_limits(limits: Limits) -> Iterator[str]:
    if limits.window is not None:
        zone = f" ({limits.time_zone})" if limits.time_zone else ""
        yield f"window {limits.window}{zone}"
        if limits.after_window != "finish":
            yield f"what then still runs is stopped after {limits.after_window}"
    for value, unit in (
        (limits.parallel, "studies at once"),
        (limits.queries_per_second, "queries a second"),
        (limits.studies_per_hour, "studies an hour"),
        (limits.megabytes_per_second, "MB a second"),
    ):
        if value is not None:
            yield f"{unit}: {value:g}"
