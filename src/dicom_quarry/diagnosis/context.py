"""What a check has to say: one step after the other, and what was learned on the way."""

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
from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.model import AE
from dicom_quarry.wire.tls import requestor_context

ModelName = Literal["study", "patient"]

#: A study has one accession, a patient not many studies: an archive that answers with more ignores the key.
_MAX_ANSWERS = 200


class StepStatus(StrEnum):
    """How a step ended."""

    GOOD = "good"
    NOTE = "note"  # worth knowing; nothing is wrong
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One step, without patient identifiers; ``remedy`` is what to do, or to ask for, where that is known."""

    name: str
    status: StepStatus
    message: str
    remedy: str = ""


@dataclass(slots=True)
class Findings:
    """What the steps found out for those that follow, for quarry.toml and for the letter."""

    our_address: str = ""
    port_is_free: bool = False
    usable_models: dict[ModelName, bool] = field(
        default_factory=dict
    )  # whether C-FIND and the road to use are offered
    get_models: dict[ModelName, bool] = field(default_factory=dict)  # whether C-FIND and C-GET are
    model: ModelName | None = None
    result_cap: int | None = None
    senders: list[str] = field(default_factory=list)
    only_get_works: bool = False  # C-MOVE fails, and C-GET does not


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Passed before anything is asked, so that the limits of the archive and the site hold here, too."""

    acquire_query: Callable[[], None] = lambda: None
    acquire_retrieval: Callable[[], AbstractContextManager[object]] = nullcontext
    record_received: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What is checked, and with what: the archive, our receiver, our manners."""

    settings: Settings
    request_limits: RequestLimits = RequestLimits()
    findings: Findings = field(default_factory=Findings)

    @property
    def profile(self) -> ArchiveProfile:
        """The archive that is checked."""
        return self.settings.archives[0]

    @property
    def local(self) -> AE:
        """Our receiver."""
        return self.settings.local

    @property
    def folder(self) -> Path:
        """Where a job would write: the folder of the settings, or the nearest above it that exists."""
        wanted = self.settings.to.absolute()
        return next(path for path in (wanted, *wanted.parents) if path.is_dir())

    def tls(self) -> ssl.SSLContext | None:
        """For associations that we ask for; raises ConfigError."""
        if self.profile.tls == "none":
            return None
        files = self.settings.tls
        return requestor_context(files.ca, files.certificate, files.key, check_hostname=files.hostname)

    def open_archive(
        self, model: ModelName, answer_cap: int = _MAX_ANSWERS, *, retrieve: Literal["move", "get"] = "move"
    ) -> DimseArchive:
        """The archive in one of the information models, to be closed by the caller."""
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
        """What the archive has to know of us."""
        host = self.local.host or self.findings.our_address or "this computer's address"
        return f"AE title {self.local.title}, address {host}, port {self.local.port}"
