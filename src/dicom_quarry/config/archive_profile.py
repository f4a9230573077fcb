"""The settings of an archive: its addresses, its transports and its limits."""

from __future__ import annotations

import re
from datetime import UTC
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)

from dicom_quarry.config.credentials import FrozenModel, HttpSettings
from dicom_quarry.config.time_window import Schedule, load_time_zone, parse_schedule
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE, BaseUri, InstanceInfo, Transport
from dicom_quarry.system.durations import UNIT_SECONDS, Duration

RemoteAE = Annotated[
    AE, BeforeValidator(lambda value: AE.parse_remote(value) if isinstance(value, str) else value)
]
LocalAE = Annotated[
    AE, BeforeValidator(lambda value: AE.parse_local(value) if isinstance(value, str) else value)
]
DicomWebUri = Annotated[
    BaseUri, BeforeValidator(lambda value: BaseUri.parse(value) if isinstance(value, str) else value)
]
#: A DICOM address or a DICOMweb address, recognised by ``://``.
ArchiveAddress = Annotated[
    AE | BaseUri, BeforeValidator(lambda value: parse_address(value) if isinstance(value, str) else value)
]

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ConcurrencyLimit = Annotated[int, Field(ge=1, le=16)]


def parse_address(text: str) -> AE | BaseUri:
    """Parse ``AET@HOST:PORT`` or ``https://HOST/PATH``; raise ConfigError."""
    return BaseUri.parse(text) if "://" in text else AE.parse_remote(text)


def _check_window(text: str) -> str:
    parse_schedule(text, UTC)
    return text


def _check_time_zone(name: str) -> str:
    load_time_zone(name)
    return name


def _check_after_window(text: str) -> str:
    if text != "finish" and not re.fullmatch(r"\d+[smhd]", text, re.ASCII):
        raise ValueError("write finish, or a duration such as 30m or 2h")
    return text


class Limits(FrozenModel):
    """Limits on the requests to an archive: the time window, the rates, and the retrievals at once.

    ``window`` has the grammar of :mod:`dicom_quarry.config.time_window`, in ``time_zone`` or else that of the
    host. A retrieval that runs when the window closes is finished, or stopped ``after_window``. ``parallel``
    limits the retrievals at once, each of one study. ``max_queries_per_row`` limits the queries for the
    studies of one row: an answer that the archive cuts at a limit is queried again in parts.
    """

    window: Annotated[str, AfterValidator(_check_window)] | None = None
    time_zone: Annotated[str, AfterValidator(_check_time_zone)] | None = None
    after_window: Annotated[str, AfterValidator(_check_after_window)] = "finish"
    parallel: ConcurrencyLimit | None = None
    queries_per_second: Rate | None = None
    studies_per_hour: Rate | None = None
    megabytes_per_second: Rate | None = None
    max_queries_per_row: Annotated[int, Field(ge=1, le=1000)] | None = None

    @property
    def schedule(self) -> Schedule:
        """The schedule of the window; always open without one."""
        return (
            Schedule() if self.window is None else parse_schedule(self.window, load_time_zone(self.time_zone))
        )

    @property
    def grace_seconds(self) -> float:
        """Seconds that running retrievals may continue after the window has closed."""
        if self.after_window == "finish":
            return float("inf")
        return int(self.after_window[:-1]) * UNIT_SECONDS[self.after_window[-1]]


class ArchiveProfile(Limits):
    """The profile of one archive; ``[archive.NAME]`` in quarry.toml. Times are in seconds.

    ``address`` is its application entity, ``dicomweb`` the URL of its web services: one of them, or both.
    ``query_timeout`` ends a query without an answer, ``silence`` a retrieval without a response or an
    instance. ``settle`` is the wait for late instances after the archive reports its success.
    ``senders``: networks from which instances may come, if not from the archive's address. ``tls`` is for
    our associations (query), or those in both directions; ``tls_profile`` is its profile (PS3.15).
    ``merged_ids``: accept images with another Patient ID than that in the archive's answer, or treat them
    as a mismatch. ``character_set`` encodes keys beyond ASCII. ``result_cap`` is the largest number of
    answers that the archive gives. ``retrieve`` is the transport; ``auto`` uses the next one if one
    delivers nothing. ``nearline_patience`` is the time that a study on tape may take.
    """

    name: str
    address: RemoteAE | None = None
    dicomweb: DicomWebUri | None = None
    http: HttpSettings = HttpSettings()
    model: Literal["study", "patient"] = "study"
    query_timeout: Seconds = 120
    silence: Seconds = 600
    settle: Seconds = 10
    senders: tuple[IPv4Network | IPv6Network, ...] = ()
    tls: Literal["none", "query", "both"] = "none"
    tls_profile: Literal["bcp195", "aes"] = "bcp195"
    merged_ids: Literal["mismatch", "accept"] = "mismatch"
    character_set: str = "ISO_IR 192"
    result_cap: Annotated[int, Field(ge=1)] | None = None
    lowest_level: Literal["image", "series", "study"] = "image"
    relational: bool | None = None
    move_identifiers: Literal["uids", "patient"] = "uids"
    nearline_patience: Duration = 4 * 3600.0
    retrieve: Literal["auto", "move", "get", "wado"] = "auto"
    _allowed: frozenset[Transport] = PrivateAttr(default=frozenset(Transport))

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if not self.addresses:
            raise ValueError('write address = "AET@HOST:PORT", dicomweb = "https://HOST/PATH", or both')
        if self.retrieve == "auto":
            return self
        if self.retrieve == "wado" and self.dicomweb is None:
            raise ValueError('retrieve = "wado" needs dicomweb = "https://HOST/PATH"')
        if self.retrieve != "wado" and self.address is None:
            raise ValueError(f'retrieve = "{self.retrieve}" needs address = "AET@HOST:PORT"')
        return self

    @property
    def addresses(self) -> tuple[AE | BaseUri, ...]:
        """The addresses of the archive, at least one."""
        return tuple(place for place in (self.address, self.dicomweb) if place is not None)

    @property
    def description(self) -> str:
        """The addresses as text."""
        return " and ".join(map(str, self.addresses))

    @property
    def dimse_ae(self) -> AE:
        """The application entity, for DIMSE; raises ConfigError if there is none."""
        if self.address is None:
            raise ConfigError(f'the archive {self.name} has no address = "AET@HOST:PORT"')
        return self.address

    @property
    def dicomweb_uri(self) -> BaseUri:
        """The URL of the web services; raises ConfigError if there is none."""
        if self.dicomweb is None:
            raise ConfigError(f'the archive {self.name} has no dicomweb = "https://HOST/PATH"')
        return self.dicomweb

    @property
    def transports(self) -> tuple[Transport, ...]:
        """The transports for instances, in the order in which they are tried; none that the site forbids."""
        return tuple(one for one in self._wanted_transports if one in self._allowed)

    @property
    def _wanted_transports(self) -> tuple[Transport, ...]:
        if self.retrieve != "auto":
            return (Transport(self.retrieve),)
        over_http = (Transport.WADO,) if self.dicomweb is not None else ()
        return (*over_http, Transport.MOVE, Transport.GET) if self.address is not None else over_http

    def allows(self, transport: Transport) -> bool:
        """Return whether the site allows a transport."""
        return transport in self._allowed

    def restricted_to(self, allowed: frozenset[Transport]) -> Self:
        """Return the profile without the transports that the site does not allow; they are not recorded."""
        restricted = self.model_copy()
        restricted._allowed = allowed
        return restricted

    @property
    def needs_receiver(self) -> bool:
        """True if the archive sends instances to our receiver, as it does for C-MOVE."""
        return Transport.MOVE in self.transports

    def is_sender_of(self, arrival: InstanceInfo) -> bool:
        """Return whether this archive sent an instance: under its AE title, or over its web services."""
        by_title = self.address is not None and self.address.title == arrival.calling_ae
        return by_title or str(self.dicomweb) == arrival.peer
