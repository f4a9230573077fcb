"""A retrieval of the study named for testing, into a folder that is removed afterwards."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from socket import SOCK_STREAM, getaddrinfo
from typing import Literal

from dicom_quarry.archive.base import Answered, Ask, Patience, Verdict, classes_of
from dicom_quarry.config.settings import DEFAULT_FILEPATH
from dicom_quarry.diagnosis.context import Bench, Model
from dicom_quarry.diagnosis.retrieval_diagnosis import Trial
from dicom_quarry.errors import Refused
from dicom_quarry.model import Admitted, Arrival, Header, InstanceRef, Receipt, Sink, Study, Writer
from dicom_quarry.receiver.server import Admission, Receiver, SenderRefused
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import Template
from dicom_quarry.wire.tls import acceptor_context

Networks = Sequence[IPv4Network | IPv6Network]

#: Seconds without a response or an instance after which a check gives up; a job is more patient.
_SILENCE = 60.0

#: Seconds to wait for stores all the same after an answer that nothing was sent.
_NOTHING_SENT = 2.0

#: Seconds that instances in flight have when the check has seen enough.
_GRACE = 5.0

_STUDY_UID = 0x0020000D
_NOT_ASKED_FOR = 0x0124


@dataclass(frozen=True, slots=True)
class Wanted:
    """The study to have sent, in which model, and its instances as far as the archive lists them."""

    model: Model
    study: Study
    instances: tuple[InstanceRef, ...] = ()

    @property
    def listed(self) -> frozenset[str]:
        """The instances by UID."""
        return frozenset(ref.sop_uid for ref in self.instances)

    @property
    def ask(self) -> Ask:
        """The whole study."""
        return Ask(self.study.study_uid, self.study.patient_id, sop_classes=classes_of(self.instances))

    @property
    def expected(self) -> int | None:
        """How many instances there should be."""
        return len(self.listed) or self.study.instance_count

    def admit(self, arrival: Arrival, header: Header) -> Admitted:
        """Let an instance in if it is one of these; raises Refused."""
        if header[_STUDY_UID] != self.study.study_uid or (self.listed and arrival.sop_uid not in self.listed):
            raise Refused("it was not asked for", status=_NOT_ASKED_FOR)
        return Admitted()


class _Guests:
    """Takes note of what arrives, and from where; the sink around the store."""

    def __init__(self, store: Sink, bench: Bench) -> None:
        self.stored: dict[str, tuple[Arrival, Receipt]] = {}
        self.last = time.monotonic()
        self._store = store
        self._received = bench.manners.received
        self._changed = threading.Condition()

    def begin(self, arrival: Arrival) -> Writer:
        """Start one instance."""
        return _Guest(self._store.begin(arrival), arrival, self)

    def heard(self, size: int) -> None:
        """So many bytes came."""
        self.last = time.monotonic()
        self._received(size)

    def arrived(self, arrival: Arrival, receipt: Receipt) -> None:
        """An instance is here."""
        with self._changed:
            self.stored[receipt.ref.sop_uid] = arrival, receipt
            self.last = time.monotonic()
            self._changed.notify_all()

    def settle(self, expected: int | None, patience: float) -> None:
        """Return when all are here, or nothing came for so long: stores may follow the final response."""
        done = time.monotonic()
        with self._changed:
            while expected is None or len(self.stored) < expected:
                left = max(done, self.last) + patience - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)


class _Guest:
    def __init__(self, inner: Writer, arrival: Arrival, guests: _Guests) -> None:
        self.abort = inner.abort
        self._inner = inner
        self._arrival = arrival
        self._guests = guests

    def write(self, data: memoryview) -> None:
        size = len(data)
        self._inner.write(data)
        self._guests.heard(size)

    def commit(self) -> Receipt:
        receipt = self._inner.commit()
        self._guests.arrived(self._arrival, receipt)
        return receipt


class _Watch:
    """Gives up when neither a response nor a byte came for a while."""

    def __init__(self, guests: _Guests, silence: float) -> None:
        self._guests = guests
        self._silence = silence
        self._last = time.monotonic()

    def sign_of_life(self, _completed: int | None, _remaining: int | None) -> None:
        self._last = time.monotonic()

    def patience(self) -> Patience:
        quiet = time.monotonic() - max(self._last, self._guests.last)
        return Patience.CANCEL if quiet > self._silence else Patience.WAIT


def move(bench: Bench, wanted: Wanted) -> list[Trial]:
    """Try once; and if the archive sends from addresses that are not admitted, once more with these.

    Only what then really comes from there shows that they are the archive's. Raises StartError.
    """
    first = _try(bench, wanted, ())
    # Whoever knocks meanwhile may be a stranger: the archive alone has the instances that it listed.
    strangers = {one.address for one in first.refused if "address" in one.why}
    if not strangers:
        return [first]
    more = [ip_network(address.partition("%")[0]) for address in strangers]
    return [first, _try(bench, wanted, more)]


def get(bench: Bench, wanted: Wanted) -> Trial:
    """Try a C-GET, for which no receiver is needed. Raises ArchiveError."""
    with _folder(bench.folder) as folder:
        guests = _Guests(_store(folder, wanted), bench)
        answered = _ask(bench, wanted, guests, "get")
        return Trial(answered, wanted.expected, tuple(guests.stored.values()))


def _try(bench: Bench, wanted: Wanted, more: Networks) -> Trial:
    refused: list[SenderRefused] = []
    with _folder(bench.folder) as folder:
        guests = _Guests(_store(folder, wanted), bench)
        receiver = _receiver(bench, guests, refused, more)
        receiver.start()
        try:
            answered = _ask(bench, wanted, guests, "move")
            guests.settle(wanted.expected, _patience(answered, bench.profile.settle))
        finally:
            receiver.stop(_GRACE)
        arrived = tuple(guests.stored.values())
    return Trial(answered, wanted.expected, arrived, tuple(refused), receiver.stats.refused)


def _patience(answered: Answered, settle: float) -> float:
    """How long stores may still be on their way: hardly, where the archive says that it sent nothing."""
    nothing = answered.verdict is not Verdict.SUCCESS and not answered.completed
    return min(settle, _NOTHING_SENT if nothing else _SILENCE)


def _ask(bench: Bench, wanted: Wanted, guests: _Guests, road: Literal["move", "get"]) -> Answered:
    archive = bench.archive(wanted.model, retrieve=road)
    watch = _Watch(guests, min(bench.profile.silence, _SILENCE))
    try:
        with bench.manners.before_study():
            return archive.retrieve(wanted.ask, guests, watch)
    finally:
        archive.close()


@contextmanager
def _folder(near: Path) -> Iterator[Path]:
    """A folder of our own, on the disk that a job would fill."""
    with tempfile.TemporaryDirectory(prefix=".quarry-check-", dir=near) as path:
        yield Path(path)


def _store(folder: Path, wanted: Wanted) -> InstanceStore:
    incoming = folder / "incoming"
    incoming.mkdir(mode=0o700)
    template = Template.parse(DEFAULT_FILEPATH)
    return InstanceStore(folder / "out", template, incoming=incoming, admit=wanted.admit)


def _receiver(bench: Bench, sink: Sink, refused: list[SenderRefused], more: Networks) -> Receiver:
    profile, files = bench.profile, bench.settings.tls
    found = getaddrinfo(profile.entity.host, None, type=SOCK_STREAM)
    own = {ip_network(str(address[0]).partition("%")[0]) for *_, address in found}
    admission = Admission(called=frozenset({bench.local.title}), networks=(*own, *profile.senders, *more))
    tls = None
    if profile.tls == "both" and files.certificate is not None:
        tls = acceptor_context(files.certificate, files.key, files.ca)
    return Receiver(bench.local, sink, admission=admission, on_event=refused.append, tls=tls)
