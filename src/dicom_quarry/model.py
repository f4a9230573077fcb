"""The nouns of Quarry as frozen data classes, and the protocol by which instances reach the disk.

One CSV row is a :class:`Request`. It resolves to one or more :class:`Study` answers, each fetched as a
:class:`Task`. Every instance that is stored gives a :class:`Receipt`, and every row ends in an
:class:`Outcome`. Receiving code (the Storage SCP, C-GET, WADO-RS) passes the bytes to storing code through a
:class:`Sink`, so that neither depends on the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from dicom_quarry.errors import ConfigError

#: An AE title (PS3.8 9.3.2, PS3.5 6.2): 1 to 16 printable ASCII characters, no backslash.
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")

_WEB_PORTS = {"http": 80, "https": 443}
_WEB_PATH = re.compile(r"(/[!$&-;=@-Z_a-z~%]*)*", re.ASCII)


class Level(StrEnum):
    """Query/Retrieve level, a value of (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


class Transport(StrEnum):
    """The method of a retrieval: C-MOVE to our receiver, C-GET on our own association, WADO-RS over HTTP."""

    MOVE = "move"
    GET = "get"
    WADO = "wado"

    @property
    def label(self) -> str:
        """The name in the standard (PS3.4, PS3.18)."""
        return {Transport.MOVE: "C-MOVE", Transport.GET: "C-GET", Transport.WADO: "WADO-RS"}[self]


@dataclass(frozen=True, slots=True)
class AE:
    """An application entity (PS3.8): a title, and the address where it listens."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}" if self.host else f"{self.title}:{self.port}"

    @classmethod
    def parse_remote(cls, text: str) -> AE:
        """Read ``AET@HOST:PORT``; raises ConfigError with the expected form."""
        title, at, address = text.partition("@")
        host, colon, port = address.rpartition(":")
        if not (at and colon and host):
            raise ConfigError(f"'{text}' is not an archive: write AET@HOST:PORT, as in PACS@10.1.2.3:104")
        return cls(_parse_title(title, text), host.strip("[]"), _parse_port(port, text))

    @classmethod
    def parse_local(cls, text: str) -> AE:
        """Read ``AET[@IP]:PORT``; without an IP ``host`` is empty, which means every interface.

        Raises ConfigError with the expected form.
        """
        name, colon, port = text.rpartition(":")
        if not colon:
            raise ConfigError(f"'{text}' is not a receiver: write AET[@IP]:PORT, as in QUARRY:11112")
        title, _, host = name.partition("@")
        return cls(_parse_title(title, text), host.strip("[]"), _parse_port(port, text))


@dataclass(frozen=True, slots=True)
class BaseUri:
    """The base URI of an archive's DICOMweb services (PS3.18 8.2); ``path`` has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _WEB_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @classmethod
    def parse(cls, text: str) -> BaseUri:
        """Read ``https://HOST[:PORT]/PATH``; raises ConfigError with the expected form."""
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError:
            raise ConfigError(f"'{text}' is not a DICOMweb address") from None
        if parts.scheme not in _WEB_PORTS or not parts.hostname or not _WEB_PATH.fullmatch(parts.path):
            raise ConfigError(
                f"'{text}' is not a DICOMweb address: write https://HOST/PATH, as in "
                "https://pacs.example.org/dicom-web"
            )
        if parts.username is not None or parts.query or parts.fragment:
            # The text may contain a password, so the message does not quote it.
            raise ConfigError(
                "a DICOMweb address is only https://HOST/PATH: put user and password, or a token, in "
                "[archive.NAME.http] of quarry.toml"
            )
        return cls(parts.scheme, parts.hostname, port or _WEB_PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def is_unencrypted(self) -> bool:
        """True if requests cross a network without encryption."""
        return self.scheme == "http" and not (self.host == "localhost" or _is_loopback(self.host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a name, such as 127.example.org


def _parse_title(title: str, text: str) -> str:
    title = title.strip()
    if not _AE_TITLE.fullmatch(title):
        raise ConfigError(f"'{text}': an AE title has 1 to 16 printable characters, without a backslash")
    return title


def _parse_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"'{text}': a port is a number from 1 to 65535")
    return int(port)


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the user's table.

    ``row`` counts data rows from 1, ``line`` is the line of the file on which the row begins, ``keys`` are
    DICOM keywords with the values to query, ``cells`` are the user's cells, unchanged. ``problem`` is set,
    and ``keys`` may be empty, if the row cannot be used. ``alternatives`` are complete sets of keys, to be
    queried in their order if ``keys`` match nothing; ``note`` names the values that were rewritten. ``claim``
    is the number of the worker's claim on the row, 0 without one.
    """

    row: int
    line: int
    keys: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]
    problem: str = ""
    alternatives: tuple[tuple[tuple[str, str], ...], ...] = ()
    note: str = ""
    claim: int = field(default=0, compare=False)

    def key_hash(self) -> bytes:
        """Return a digest of the keys (16 bytes), which identifies a row in a table that has grown."""
        text = "\x1f".join(f"{keyword}\x1e{value}" for keyword, value in sorted(self.keys))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


@dataclass(frozen=True, slots=True)
class Study:
    """A study as the archive describes it at STUDY level; a count is None if the archive gave none.

    ``availability`` is ONLINE, NEARLINE, OFFLINE or UNAVAILABLE (PS3.3 C.4.23.1.1); empty if unknown.
    ``extra_attributes`` are further attributes of the query, as pairs of keyword and value.
    """

    study_uid: str
    patient_id: str = ""
    accession: str = ""
    study_date: str = ""
    modalities: str = ""
    description: str = ""
    series_count: int | None = None
    instance_count: int | None = None
    availability: str = ""
    extra_attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """A series as an archive lists it; ``instance_count`` is None if the archive gave none.

    ``unknown`` are keywords of attributes that the archive does not return, at any level.
    """

    series_uid: str
    modality: str
    description: str
    instance_count: int | None
    unknown: frozenset[str] = frozenset()

    def has(self, keyword: str) -> bool:
        """Return True if the archive gave a value of this attribute."""
        values = {
            "Modality": self.modality,
            "SeriesDescription": self.description,
            "NumberOfSeriesRelatedInstances": self.instance_count,
        }
        return values[keyword] not in ("", None)


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """A reference to one instance; its identity is ``sop_uid`` alone."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a study to fetch: the series named, or the whole study if none is."""

    series: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Task:
    """A study, or a selection of it, to fetch from one archive.

    ``claim`` is the number of the worker's claim on it, 0 without one.
    """

    task_id: int
    archive: str
    study: Study
    selection: Selection = field(default_factory=Selection)
    claim: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Listing:
    """An archive's list of the instances of a task, from queries at SERIES and IMAGE level.

    ``instances`` is the list against which completeness is proved. ``lists_instances`` is False if the
    archive cannot list instances: then ``count`` is the only evidence. ``complete`` is False if a query ended
    early or reached a limit, for the reason in ``incomplete_reason``. ``count`` is the largest number of
    instances in any answer, None if no answer had one. ``modalities`` are those of the series, by their UIDs.
    ``is_doubtful`` is True if the archive may have left out answers when it found the study.
    """

    instances: tuple[InstanceRef, ...]
    series_uids: tuple[str, ...]
    lists_instances: bool = True
    complete: bool = True
    count: int | None = None
    incomplete_reason: str = ""
    modalities: Mapping[str, str] = field(default_factory=dict)
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """The data that a sender gives before the bytes of an instance.

    ``head`` is preamble, prefix and file meta information (PS3.10 7.1) of an instance that arrived as a DICOM
    file: it is stored unchanged before the dataset. It is empty for a dataset without file meta information.
    ``move_id`` is the Move Originator Message ID (PS3.7 9.1.1.1), ``task_id`` that of the task on whose own
    request the instance came; None if the sender gave none, or the instance came over another connection.
    """

    sop_class: str
    sop_uid: str
    transfer_syntax: str
    calling_ae: str = ""
    called_ae: str = ""
    peer: str = ""
    head: bytes = b""
    move_id: int | None = None
    task_id: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceAdmission:
    """The decision to store an instance. ``cells`` are the user's cells, by header, for its path.

    ``subdirectory`` is a folder below the root for instances that must be stored separately; empty for the
    usual place.
    """

    cells: Mapping[str, str] = field(default_factory=dict)
    subdirectory: str = ""


class StoreResult(StrEnum):
    """The result of storing an instance."""

    STORED = "stored"
    IDENTICAL = "identical"  # the same dataset was stored already
    OTHER_ENCODING = "other_encoding"  # stored already in another transfer syntax; the first is kept
    CONFLICT = "conflict"  # stored already with other content; both are kept


@dataclass(frozen=True, slots=True)
class Receipt:
    """Record of a stored instance, created once its file is whole and has its final name.

    ``path`` is relative to the store's root. ``size`` (bytes) and ``digest`` (SHA-256, 32 bytes, as from
    ``sha256sum``) are those of the file at that path.
    """

    ref: InstanceRef
    transfer_syntax: str
    path: PurePosixPath
    size: int
    digest: bytes
    result: StoreResult = StoreResult.STORED
    patient_id: str = ""
    accession: str = ""


class Writer(Protocol):
    """A writer for the dataset of one instance, which arrives in pieces."""

    def write(self, *pieces: memoryview) -> None:
        """Write the next bytes, in one or more pieces; the caller may reuse the memory afterwards.

        Raises InstanceRefused, or its subclass OutOfSpace.
        """

    def commit(self) -> Receipt:
        """Store the instance under its final name; if it raises InstanceRefused, nothing is stored."""

    def abort(self) -> None:
        """Discard the instance; may be called at any time, also after a failed write or commit."""


class Sink(Protocol):
    """The destination of instances; several threads may call it."""

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Begin one instance; raises InstanceRefused before any byte is read."""


#: Attributes of an instance by tag, such as ``{0x00100020: "4711"}``: text without padding.
Header = Mapping[int, str]


class RequestState(StrEnum):
    """The state of a row of the user's table."""

    WAITING = "waiting"
    RESOLVED = "resolved"  # it has tasks; its outcome is the worst of theirs
    CONCLUDED = "concluded"  # it has an outcome of its own, and no task


class TaskState(StrEnum):
    """The state of a task.

    The ledger stores waiting, concluded and unwanted. The other states are in the memory of the job, while
    the task is stored as waiting.
    """

    WAITING = "waiting"
    LISTING = "listing"
    DECIDING = "deciding"
    RETRIEVING = "retrieving"
    SETTLING = "settling"  # instances may still arrive after the final response
    COMMITTING = "committing"  # files and outcome are being made durable
    CONCLUDED = "concluded"
    UNWANTED = "unwanted"  # no row requests it any more; it is kept, and not worked on


class OnCompleteState(StrEnum):
    """The state of the user's command for one complete study."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


class OutcomeStatus(StrEnum):
    """The status in which a row, or a task, ended; ``pending`` if it has not ended yet."""

    COMPLETE = "complete"
    FILTERED = "filtered"
    PARTIAL = "partial"
    UNVERIFIED = "unverified"
    NO_IMAGES = "no_images"
    NOT_FOUND = "not_found"
    SEVERAL_PATIENTS = "several_patients"
    MISMATCH = "mismatch"
    INVALID_ROW = "invalid_row"
    EXCLUDED = "excluded"
    FAILED = "failed"
    PENDING = "pending"


#: The statuses that need no attention: complete, and left out by the user's own conditions.
SETTLED = frozenset({OutcomeStatus.COMPLETE, OutcomeStatus.FILTERED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A status, a stable reason code for scripts, a sentence for people, and the next step."""

    status: OutcomeStatus
    code: str
    reason: str
    next_step: str = ""
