"""The nouns of Quarry, frozen, and the protocol by which instances reach the disk.

One CSV row is a :class:`Request`; it resolves to one or more :class:`Study` answers, each fetched as a
:class:`Task`; every instance that arrives leaves a :class:`Receipt`; every row ends in an :class:`Outcome`.
Bytes travel from whoever receives them (the Storage SCP, C-GET, WADO-RS) to whoever keeps them through a
:class:`Sink`, so that neither knows the other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from dicom_quarry.errors import ConfigError

#: What may stand in an AE title (PS3.8 9.3.2, PS3.5 6.2): 1 to 16 printable ASCII characters, no back-slash.
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")

_WEB_PORTS = {"http": 80, "https": 443}
_WEB_PATH = re.compile(r"(/[!$&-;=@-Z_a-z~%]*)*", re.ASCII)


class Level(StrEnum):
    """Query/Retrieve level, as it stands in (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


class Transport(StrEnum):
    """How instances come: sent to our receiver, over our own association, or over HTTP."""

    MOVE = "move"
    GET = "get"
    WADO = "wado"


@dataclass(frozen=True, slots=True)
class AE:
    """An application entity: a title, and the address where it listens."""

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
        """Read ``AET[@IP]:PORT``; without an IP, every interface is meant and ``host`` is empty."""
        name, colon, port = text.rpartition(":")
        if not colon:
            raise ConfigError(f"'{text}' is not a receiver: write AET[@IP]:PORT, as in QUARRY:11112")
        title, _, host = name.partition("@")
        return cls(_parse_title(title, text), host.strip("[]"), _parse_port(port, text))


@dataclass(frozen=True, slots=True)
class BaseUri:
    """Where an archive's DICOMweb services begin (PS3.18 8.2): ``path`` is without a slash at its end."""

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
            raise ConfigError(f"'{text}' is not an address of DICOMweb") from None
        if parts.scheme not in _WEB_PORTS or not parts.hostname or not _WEB_PATH.fullmatch(parts.path):
            raise ConfigError(
                f"'{text}' is not an address of DICOMweb: write https://HOST/PATH, as in "
                "https://pacs.example.org/dicom-web"
            )
        if parts.username is not None or parts.query or parts.fragment:
            # What is wrong here may be a password: it is not repeated.
            raise ConfigError(
                "an address of DICOMweb is https://HOST/PATH alone: user and password, or a token, stand in "
                "[archive.NAME.http] of quarry.toml"
            )
        return cls(parts.scheme, parts.hostname, port or _WEB_PORTS[parts.scheme], parts.path.rstrip("/"))

    @property
    def is_unencrypted(self) -> bool:
        """Whether what goes there can be read by others on the way."""
        return self.scheme == "http" and not (
            self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"
        )


def _parse_title(title: str, text: str) -> str:
    title = title.strip()
    if not _AE_TITLE.fullmatch(title):
        raise ConfigError(f"'{text}': an AE title has 1 to 16 printable characters without back-slash")
    return title


def _parse_port(port: str, text: str) -> int:
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"'{text}': a port is a number from 1 to 65535")
    return int(port)


@dataclass(frozen=True, slots=True)
class Request:
    """One row of the user's table.

    ``row`` counts data rows from 1, ``line`` is where the row begins in the file, ``keys`` are DICOM keywords
    with the values to ask for, ``cells`` are the user's own columns untouched. ``problem`` is set, and
    ``keys`` may be empty, where the row cannot be used. ``alternatives`` are whole sets of keys, to be asked
    for in their order where ``keys`` find nothing; ``note`` tells which values were rewritten.
    """

    row: int
    line: int
    keys: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]
    problem: str = ""
    alternatives: tuple[tuple[tuple[str, str], ...], ...] = ()
    note: str = ""

    def key_hash(self) -> bytes:
        """A digest of the keys alone: the same row found again in a table that has grown (16 bytes)."""
        text = "\x1f".join(f"{keyword}\x1e{value}" for keyword, value in sorted(self.keys))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


@dataclass(frozen=True, slots=True)
class Study:
    """A study as the archive describes it at STUDY level; counts are None where it did not say.

    ``availability`` is ONLINE, NEARLINE, OFFLINE or UNAVAILABLE (PS3.3 C.4.23.1.1); empty if unknown.
    ``others`` are further attributes that were asked for, by keyword, as the archive gave them.
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
    """A series as an archive lists it; ``count`` is None where it did not say."""

    series_uid: str
    modality: str
    description: str
    instance_count: int | None


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """Names one instance; its identity is ``sop_uid`` alone."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a study is wanted: the series named, or everything where none is."""

    series: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to fetch: a study, or a selection of it, from one archive."""

    task_id: int
    archive: str
    study: Study
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive says it holds of a task, asked at SERIES and IMAGE level.

    ``instances`` is the list to prove against. ``by_image`` is False where the archive cannot list instances:
    then ``count`` is all there is. ``complete`` is False when a query ended early or was capped, with the
    reason in ``why``. ``count`` is the largest number of instances that any answer claimed, None if none did.
    """

    instances: tuple[InstanceRef, ...]
    series_uids: tuple[str, ...]
    lists_instances: bool = True
    complete: bool = True
    count: int | None = None
    incomplete_reason: str = ""


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """What a sender announces before the bytes of an instance.

    ``head`` is preamble, prefix and file meta information where the instance came as a DICOM file, to be kept
    as they are before its dataset; empty where a dataset came alone.
    """

    sop_class: str
    sop_uid: str
    transfer_syntax: str
    calling_ae: str = ""
    called_ae: str = ""
    peer: str = ""
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class InstanceAdmission:
    """Leave to keep an instance. ``cells`` are the user's own columns, by header, for its path.

    ``apart`` is a folder below the root for what must not be mixed with the rest; empty for the usual place.
    """

    cells: Mapping[str, str] = field(default_factory=dict)
    subdirectory: str = ""


class StoreResult(StrEnum):
    """What became of an instance that was taken."""

    STORED = "stored"
    IDENTICAL = "identical"  # the same dataset was here already
    OTHER_ENCODING = "other_encoding"  # here already under another transfer syntax; the first is kept
    CONFLICT = "conflict"  # here already with other content; both are kept


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an instance is on disk: made only after its bytes are durable.

    ``path`` is relative to the store's root. ``size`` (bytes) and ``digest`` (SHA-256, 32 bytes) are of the
    file at that path, as ``sha256sum`` sees it.
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
    """Takes the dataset of one instance, in pieces, as they come over the wire."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes; the memory may be reused afterwards. Raises Refused or OutOfSpace."""

    def commit(self) -> Receipt:
        """Make the instance durable under its final name; raises Refused, having kept nothing."""

    def abort(self) -> None:
        """Forget the instance; may be called at any time, also after a failed write or commit."""


class Sink(Protocol):
    """Where instances go."""

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance. Raises Refused before any byte is read. Called from several threads."""


#: Values of the header of an instance by tag, e.g. ``{0x00100020: "4711"}``: text, stripped of padding.
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
    """How a row, or a task, ended. ``pending`` is for what has not ended yet."""

    COMPLETE = "complete"
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """A word, a stable reason code for scripts, a sentence for people, and what to do next."""

    status: OutcomeStatus
    code: str
    reason: str
    next_step: str = ""
