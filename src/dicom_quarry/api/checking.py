"""A check of the connection to an archive, within the limits of the archive and the site."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import reduce
from operator import and_
from pathlib import Path

from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.config.site_policy import load_site_policy
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.config.toml_file import FILE_NAME
from dicom_quarry.diagnosis.access_request import render_access_request
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, RequestLimits, StepStatus
from dicom_quarry.diagnosis.runner import run_checks
from dicom_quarry.diagnosis.save_profile import save_profile
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.scheduling.site_throttle import build_throttle
from dicom_quarry.system.shutdown import Shutdown


class ConnectionCheck:
    """A check of one archive. Raises ConfigError, and InputError where the settings name several archives."""

    def __init__(
        self,
        config_file: Path | None = None,
        *,
        archive: str | None = None,
        local: str | None = None,
        trust_owner: bool = False,
    ) -> None:
        self.settings_file = config_file or Path(FILE_NAME)
        settings = _load_check_settings(config_file, archive, local, trust_owner=trust_owner)
        policy = load_site_policy()
        profile = policy.apply(settings.archives[0])
        settings = settings.model_copy(update={"archives": (profile,)})
        throttle = build_throttle(profile, 1, policy, Shutdown(), StatusBoard())
        limits = RequestLimits(throttle.acquire_query, throttle.acquire_retrieval, throttle.throttle_bytes)
        self._limits = [profile, *policy.limits_for(profile).values()]
        self._context = CheckContext(settings, limits)
        self.steps: list[CheckStep] = []

    @property
    def failed(self) -> bool:
        """True if a step has failed so far."""
        return any(step.status is StepStatus.BAD for step in self.steps)

    @property
    def not_shown(self) -> str:
        """The question that no step has answered so far, although none failed; empty if there is none."""
        profile = self._context.profile
        if profile.needs_receiver:
            if any(step.name == "C-MOVE" and step.status is StepStatus.GOOD for step in self.steps):
                return ""
            return f"whether the archive knows {self._context.local.title} as a destination"
        is_shown = any(
            step.name in ("C-GET", "WADO-RS") and step.status is StepStatus.GOOD for step in self.steps
        )
        return "" if is_shown else "whether the archive answers queries and sends images"

    def run(
        self, *, accession: str = "", patient_id: str = "", probe_cap: bool = False
    ) -> Iterator[CheckStep]:
        """Run the checks; yields each step when it has ended, and keeps it in ``steps``.

        With ``accession`` that study is queried and retrieved; ``patient_id`` is its patient, which the
        Patient Root model needs. ``probe_cap`` looks for a limit on the number
        of query results. Raises StartError outside the hours in which the archive may be queried.
        """
        if self.closed_reason:
            raise StartError(
                f"{self.closed_reason}. The letter can be written now: add --letter FILE, and "
                "leave out --accession, --probe and --save"
            )
        steps = run_checks(
            self._context,
            self._hours,
            accession=accession,
            patient_id=patient_id,
            probe_cap=probe_cap,
        )
        for step in steps:
            self.steps.append(step)
            yield step

    def save(self) -> list[str]:
        """Write the findings to ``settings_file``; returns the lines that were added or changed."""
        return save_profile(self.settings_file, self._context)

    def access_request(self) -> str:
        """Return the page for the PACS team in Markdown; it sends nothing, and needs no ``run`` before."""
        return render_access_request(self._context, self._limits, socket.gethostname(), self.steps)

    @property
    def _hours(self) -> Schedule:
        return reduce(and_, (one.schedule for one in self._limits))

    @property
    def closed_reason(self) -> str:
        """The reason why the archive may not be queried now, empty inside the time window."""
        now = datetime.now(UTC)
        if self._hours.is_open(now):
            return ""
        opens = self._hours.next_open(now)
        when = f" until {self._hours.format_time(opens)}" if opens else ""
        return f"outside the time window: the archive may not be queried{when}"


def _load_check_settings(
    path: Path | None, archive: str | None, local: str | None, *, trust_owner: bool
) -> Settings:
    """Load a job's settings; without an output folder the current folder's disk is checked."""
    flags = {"from": archive, "as": local, "trust_owner": trust_owner or None}
    settings = load_settings(path, flags, {"to": Path()})
    if len(settings.archives) > 1:
        raise InputError("Several archives are configured. Check one at a time: name it with --from")
    return settings
