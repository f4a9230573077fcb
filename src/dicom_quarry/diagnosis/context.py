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
from dicom_quarry.archive.dimse.association_factory import Patiences
from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.model import AE
from dicom_quarry.wire.tls import requestor_context

Model = Literal["study", "patient"]

#: A study has one accession, a patient not many studies: an archive that answers with more ignores the key.
_MOST_ANSWERS = 200


class Mark(StrEnum):
    """How a step ended."""

    GOOD = "good"
    NOTE = "note"  # worth knowing; nothing is wrong
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, without patient identifiers; ``remedy`` is what to do, or to ask for, where that is known."""

    name: str
    mark: Mark
    said: str
    remedy: str = ""


@dataclass(slots=True)
class Learned:
    """What the steps found out for those that follow, for quarry.toml and for the letter."""

    our_address: str = ""
    port_is_free: bool = False
    models: dict[Model, bool] = field(default_factory=dict)  # whether C-FIND and the road to use are offered
    gets: dict[Model, bool] = field(default_factory=dict)  # whether C-FIND and C-GET are
    model: Model | None = None
    result_cap: int | None = None
    senders: list[str] = field(default_factory=list)
    only_get: bool = False  # C-MOVE fails, and C-GET does not


@dataclass(frozen=True, slots=True)
class Manners:
    """Passed before anything is asked, so that the limits of the archive and the site hold here, too."""

    before_query: Callable[[], None] = lambda: None
    before_study: Callable[[], AbstractContextManager[object]] = nullcontext
    received: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Bench:
    """What is checked, and with what: the archive, our receiver, our manners."""

    settings: Settings
    manners: Manners = Manners()
    learned: Learned = field(default_factory=Learned)

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

    def archive(
        self, model: Model, answer_cap: int = _MOST_ANSWERS, *, retrieve: Literal["move", "get"] = "move"
    ) -> DimseArchive:
        """The archive in one of the information models, to be closed by the caller."""
        title, profile = self.local.title, self.profile
        return DimseArchive(
            profile.name,
            profile.entity,
            calling=title,
            destination=title,
            model=model,
            charset=profile.character_set,
            answer_cap=answer_cap,
            patiences=Patiences(query=profile.query_timeout),
            tls=self.tls(),
            before_query=self.manners.before_query,
            retrieve=retrieve,
        )

    def registration(self) -> str:
        """What the archive has to know of us."""
        host = self.local.host or self.learned.our_address or "this computer's address"
        return f"AE title {self.local.title}, address {host}, port {self.local.port}"
