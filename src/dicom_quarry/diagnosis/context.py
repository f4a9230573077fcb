"""The context of a check: its archive and receiver, the steps that it reports, and its findings."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.model import AE, Transport
from dicom_quarry.wire.tls import requestor_context

ModelName = Literal["study", "patient"]

#: More results than a query by accession or patient ID can have: the archive then ignores the key.
_MAX_ANSWERS = 200


class StepStatus(StrEnum):
    """The result of a step."""

    GOOD = "good"
    NOTE = "note"  # useful to know; nothing is wrong
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step, without patient identifiers; ``remedy`` is what to do about a failure, if that is known."""

    name: str
    status: StepStatus
    message: str
    remedy: str = ""


@dataclass(slots=True)
class Findings:
    """Findings of the steps, used by later steps, for quarry.toml and for the letter."""

    our_address: str = ""
    port_is_free: bool = False
    #: True where the archive offers C-FIND and the transport to use.
    usable_models: dict[ModelName, bool] = field(default_factory=dict)
    #: True where it offers C-FIND and C-GET.
    get_models: dict[ModelName, bool] = field(default_factory=dict)
    model: ModelName | None = None
    result_cap: int | None = None
    senders: list[str] = field(default_factory=list)
    only_get_works: bool = False  # C-MOVE fails, and C-GET does not


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Functions to call before queries and retrievals, so that the limits of archive and site hold."""

    acquire_query: Callable[[], None] = lambda: None
    acquire_retrieval: Callable[[], AbstractContextManager[object]] = nullcontext
    record_received: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The archive to check, with the settings and limits to use."""

    settings: Settings
    request_limits: RequestLimits = RequestLimits()
    findings: Findings = field(default_factory=Findings)

    @property
    def profile(self) -> ArchiveProfile:
        """The archive that is checked."""
        return self.settings.archives[0]

    @property
    def uses_get_alone(self) -> bool:
        """True if C-GET is the only method of retrieval that the settings and the site leave."""
        return self.profile.transports == (Transport.GET,)

    @property
    def local(self) -> AE:
        """Our receiver."""
        return self.settings.local

    @property
    def folder(self) -> Path:
        """The folder that a job would fill, or the nearest above it that exists."""
        wanted = self.settings.to.absolute()
        return next(path for path in (wanted, *wanted.parents) if path.is_dir())

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context of associations to the archive, None without TLS; raises ConfigError."""
        if self.profile.tls == "none":
            return None
        files = self.settings.tls
        return requestor_context(
            files.ca,
            files.certificate,
            files.key,
            check_hostname=files.hostname,
            profile=self.profile.tls_profile,
        )

    def open_archive(
        self, model: ModelName, answer_cap: int = _MAX_ANSWERS, *, retrieve: Literal["move", "get"] = "move"
    ) -> DimseArchive:
        """Open the archive in one information model (PS3.4 C.6); the caller closes it."""
        title, profile = self.local.title, self.profile
        return DimseArchive(
            profile.name,
            profile.dimse_ae,
            calling=title,
            destination=title,
            model=model,
            charset=profile.character_set,
            max_studies=answer_cap,
            timeouts=Timeouts(query=profile.query_timeout),
            tls=self.tls(),
            before_query=self.request_limits.acquire_query,
            retrieve=retrieve,
        )

    def describe_registration(self) -> str:
        """Describe our receiver as the archive has to register it."""
        host = self.local.host or self.findings.our_address or "this computer's address"
        return f"AE title {self.local.title}, address {host}, port {self.local.port}"
