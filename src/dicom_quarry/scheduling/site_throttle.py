"""The throttle of an archive under the site's policy."""

from __future__ import annotations

import re
from hashlib import sha256

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.host_state import open_host_state
from dicom_quarry.scheduling.shared_state import SharedState
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown


def build_throttle(
    profile: ArchiveProfile,
    parallel: int,
    policy: SitePolicy,
    shutdown: Shutdown,
    status_board: StatusBoard,
    shared_state: SharedState | None = None,
) -> ArchiveThrottle:
    """Return the throttle for an archive under the site's policy; raise ConfigError or StartError.

    ``shared_state`` is by default that of this host.
    """
    site_limits = policy.limits_for(profile)
    is_shared = any(
        one.parallel or one.queries_per_second or one.studies_per_hour or one.megabytes_per_second
        for one in site_limits.values()
    )
    if shared_state is None:
        shared_state = open_host_state(policy.shared, shutdown.wait_unless_cancelled, is_required=is_shared)
    return ArchiveThrottle(
        profile,
        site_limits,
        parallel=parallel,
        shared_state=shared_state,
        shutdown=shutdown,
        status_board=status_board,
        archive=_state_name(profile),
    )


def _state_name(profile: ArchiveProfile) -> str:
    """Return the name of an archive's record: that of all profiles with the same addresses."""
    addresses = profile.addresses
    place = re.sub(r"[^A-Za-z0-9.]", "_", f"{addresses[0].host}.{addresses[0].port}".lower())
    digest = sha256(" ".join(sorted(map(str, addresses))).encode()).hexdigest()
    return f"archive.{place[:80]}.{digest[:12]}"
