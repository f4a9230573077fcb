"""The site's policy: limits that an administrator sets for all users, and that users can only tighten.

The path of its file is fixed: no flag and no variable replaces it. The file has the limits of an archive in
quarry.toml. At its top they apply to everything that Quarry does on this host; in
``[archive."AET@HOST:PORT"]`` or ``[archive."https://HOST/PATH"]`` to all requests to that archive, of
all jobs and users together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dicom_quarry.config.archive_profile import ArchiveAddress, ArchiveProfile, Limits
from dicom_quarry.config.exclusion_files import ExclusionFiles, as_list, parse_exclusion_files
from dicom_quarry.config.toml_file import normalize_keys, read_toml, validate_model
from dicom_quarry.errors import ConfigError, StartError
from dicom_quarry.model import AE, BaseUri, Transport
from dicom_quarry.system.addresses import IPAddress, identify_computer, normalize_host, resolve, wait_for_name

SITE_POLICY_FILE = Path("/etc/quarry/site.toml")

#: The name of the counters of the limits at the top of the file; an archive's are named by its address.
HOST_WIDE = "all"

#: The most queries for the studies of one row, unless the archive's profile has another number.
DEFAULT_QUERIES_PER_ROW = 200


class SiteLimits(Limits):
    """Limits of the site; ``retrieve`` are the only methods of retrieval that it allows, None for all."""

    retrieve: Annotated[tuple[Transport, ...], BeforeValidator(as_list), Field(min_length=1)] | None = None


class SitePolicy(SiteLimits):
    """The policy in site.toml.

    ``archives``: the only ones that are allowed. ``shared``: the folder on this host with the counters of all
    users' jobs. ``exclude``: the site's exclusion lists.
    """

    archives: tuple[ArchiveAddress, ...] | None = None
    shared: Path = Path("/run/lock/quarry")
    exclude: ExclusionFiles = ()
    archive: dict[ArchiveAddress, SiteLimits] = Field(default_factory=dict)

    def apply(self, profile: ArchiveProfile) -> ArchiveProfile:
        """Return the profile with the methods of retrieval that the site allows.

        Raises ConfigError if it does not allow the archive, or none of the methods; StartError as
        ``limits_for``.
        """
        self.check_archive(profile)
        allowed = frozenset(Transport)
        for limits in self.limits_for(profile).values():
            allowed &= frozenset(Transport) if limits.retrieve is None else frozenset(limits.retrieve)
        restricted = profile.restricted_to(allowed)
        if not restricted.transports:
            raise ConfigError(_describe_forbidden(profile, allowed))
        return restricted

    def check_archive(self, profile: ArchiveProfile) -> None:
        """Raise ConfigError if the archive is not allowed."""
        if self.archives is None:
            return
        for address in profile.addresses:
            if not any(_is_same_address(one, address) for one in self.archives):
                allowed = ", ".join(map(str, self.archives)) or "none"
                raise ConfigError(
                    f"{SITE_POLICY_FILE}: this site does not allow the archive {address}. Allowed: {allowed}"
                    ". The administrator can add it to 'archives' in that file"
                )

    def limits_for(self, profile: ArchiveProfile) -> dict[str, SiteLimits]:
        """Return the limits that apply to an archive, by the names of their shared counters.

        The AE title does not identify an archive, as many answer to any title. A limit on an archive's DIMSE
        address also applies to its web services, and the other way round. Hosts are the same if they have an
        address in common. Raises StartError for a name that does not resolve within a minute: its limits
        would be lost.
        """
        found: dict[str, SiteLimits] = {HOST_WIDE: self}
        for address, limits in self.archive.items():
            if any(_limits_apply(address, wanted, profile.http.proxy) for wanted in profile.addresses):
                found[re.sub(r"[^A-Za-z0-9.]", "_", f"{address.host}.{address.port}")] = limits
        return found

    def row_query_limit(self, profile: ArchiveProfile) -> int:
        """Return the most queries for the studies of one row: the lowest limit of site and profile."""
        site_limits = (one.max_queries_per_row for one in self.limits_for(profile).values())
        own_limit = profile.max_queries_per_row or DEFAULT_QUERIES_PER_ROW
        return min([own_limit, *(limit for limit in site_limits if limit)])

    def describe_limits(self, profile: ArchiveProfile) -> str:
        """Return the limits that apply to an archive as a sentence, empty if there are none."""
        parts = [part for limits in self.limits_for(profile).values() for part in _describe_limits(limits)]
        if not parts:
            return ""
        return (
            f"limits of this site, for all jobs of this computer together ({SITE_POLICY_FILE}): "
            f"{'; '.join(parts)}"
        )


def load_site_policy() -> SitePolicy:
    """Load the policy of this host, without limits if there is no file; raise ConfigError.

    A file that cannot be read stops the job, as a limit must not be lost by an error.
    """
    try:
        values = read_toml(SITE_POLICY_FILE)
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return SitePolicy()
        raise
    try:
        if "exclude" in values:
            values["exclude"] = parse_exclusion_files(values["exclude"], SITE_POLICY_FILE)
        return validate_model(SitePolicy, _inherit_time_zone(values), SITE_POLICY_FILE)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(
            message if message.startswith(str(SITE_POLICY_FILE)) else f"{SITE_POLICY_FILE}: {message}"
        ) from error


def describe_site_list(counts: str) -> str:
    """Return the site's exclusion lists as a message; ``counts`` are the identifiers in them."""
    return f"exclusion list of this site, for every user ({SITE_POLICY_FILE}): {counts}"


def _inherit_time_zone(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the time zone at the top as the default of every archive."""
    zone = {name: values[name] for name in ("time_zone",) if name in values}
    archives = values.get("archive")
    if not isinstance(archives, dict) or not all(isinstance(one, dict) for one in archives.values()):
        return values
    return {**values, "archive": {name: {**zone, **normalize_keys(one)} for name, one in archives.items()}}


def _is_same_address(allowed: AE | BaseUri, wanted: AE | BaseUri) -> bool:
    """Return whether an address is allowed: no name is resolved, as its owner may let it mean another."""
    return replace(allowed, host=normalize_host(allowed.host)) == replace(
        wanted, host=normalize_host(wanted.host)
    )


def _limits_apply(limited: AE | BaseUri, wanted: AE | BaseUri, proxy: str) -> bool:
    """Return whether the limits of one address apply to another."""
    comparable = type(limited) is type(wanted)
    if comparable and limited.port != wanted.port:
        return False
    if normalize_host(limited.host) == normalize_host(wanted.host):
        return True
    if proxy and isinstance(wanted, BaseUri):
        # The proxy resolves the name. Where this computer cannot, another spelling must not avoid the limits.
        try:
            return not _computers_of(limited.host).isdisjoint(map(identify_computer, resolve(wanted.host)))
        except OSError:
            return True
    return not _computers_of(limited.host).isdisjoint(_computers_of(wanted.host))


@cache
def _computers_of(host: str) -> frozenset[IPAddress]:
    """Return the addresses of a host; one that was found stays for this process."""
    try:
        return frozenset(map(identify_computer, wait_for_name(normalize_host(host))))
    except OSError as error:
        raise StartError(
            f"the host name {host} cannot be resolved ({error.strerror or error}), so the limits in "
            f"{SITE_POLICY_FILE} cannot be applied. Correct the name, or run the command again later"
        ) from error


def _describe_forbidden(profile: ArchiveProfile, allowed: frozenset[Transport]) -> str:
    """Return why a profile cannot be used: the site allows none of its methods of retrieval."""
    wanted = " and ".join(one.label for one in profile.transports)
    names = " and ".join(one.label for one in Transport if one in allowed) or "none"
    by_user = "without retrieve in quarry.toml and without --retrieve" if profile.retrieve != "auto" else ""
    web = 'with dicomweb = "https://HOST/PATH" in its table' if Transport.WADO in allowed else ""
    remedy = by_user or web or 'with address = "AET@HOST:PORT" in its table'
    return (
        f"{SITE_POLICY_FILE}: this site does not allow {wanted} from the archive {profile.description}. "
        f"Allowed: {names}. Use the archive {remedy}, or ask the administrator, who can change "
        "'retrieve' in that file"
    )


def _describe_limits(limits: SiteLimits) -> Iterator[str]:
    if limits.retrieve is not None:
        yield f"images by {' and '.join(one.label for one in limits.retrieve)} alone"
    if limits.window is not None:
        zone = f" ({limits.time_zone})" if limits.time_zone else ""
        yield f"window {limits.window}{zone}"
        if limits.after_window != "finish":
            yield f"retrievals are stopped {limits.after_window} after it closes"
    for value, unit in (
        (limits.parallel, "studies at once"),
        (limits.queries_per_second, "queries a second"),
        (limits.studies_per_hour, "studies an hour"),
        (limits.megabytes_per_second, "MB a second"),
        (limits.max_queries_per_row, "queries for the studies of one row"),
    ):
        if value is not None:
            yield f"{unit}: {value:g}"
