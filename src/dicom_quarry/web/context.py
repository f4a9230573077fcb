"""The options of one server, and what its pages share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dicom_quarry.web.cluster_views import ClusterViews
from dicom_quarry.web.job_views import JobViews
from dicom_quarry.web.sessions import Sessions


@dataclass(frozen=True, slots=True)
class WebContext:
    """The options of one server, its sessions, and the views that its pages share.

    ``allow_actions``: buttons may stop and start jobs; ``with_identifiers``: pages may name patients.
    ``stopping`` is set when the server ends.
    """

    allow_actions: bool = False
    with_identifiers: bool = False
    sessions: Sessions = field(default_factory=Sessions)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    views: JobViews = field(default_factory=JobViews)
    cluster: ClusterViews = field(default_factory=ClusterViews)
