"""A retrieval of the test study into a folder that is deleted afterwards."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from dicom_quarry.archive.base import (
    MonitorAction,
    RetrieveRequest,
    RetrieveResult,
    Verdict,
    group_sop_classes,
)
from dicom_quarry.config.settings import DEFAULT_FILEPATH
from dicom_quarry.diagnosis.context import CheckContext, ModelName
from dicom_quarry.diagnosis.retrieval_diagnosis import RetrievalTrial
from dicom_quarry.errors import InstanceRefused
from dicom_quarry.model import (
    Header,
    InstanceAdmission,
    InstanceInfo,
    InstanceRef,
    Receipt,
    Sink,
    Study,
    Writer,
)
from dicom_quarry.receiver.server import AccessPolicy, Receiver, SenderRejected
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.addresses import resolve
from dicom_quarry.wire.tls import acceptor_context

Networks = Sequence[IPv4Network | IPv6Network]

#: Seconds without a response or an instance after which a check gives up; a job waits longer.
_SILENCE_TIMEOUT = 60.0

#: Seconds to wait for instances after a response that none was sent.
_NOTHING_SENT_TIMEOUT = 2.0

#: Seconds that instances in transfer have when the receiver stops.
_STOP_TIMEOUT = 5.0

_STUDY_UID = 0x0020000D
_NOT_REQUESTED = 0x0124


@dataclass(frozen=True, slots=True)
class ExpectedStudy:
    """The study to retrieve, the information model to use, and the instances that the archive lists."""

    model: ModelName
    study: Study
    instances: tuple[InstanceRef, ...] = ()

    @property
    def listed_uids(self) -> frozenset[str]:
        """The SOP Instance UIDs of the listed instances."""
        return frozenset(ref.sop_uid for ref in self.instances)

    @property
    def request(self) -> RetrieveRequest:
        """The request for the whole study."""
        return RetrieveRequest(
            self.study.study_uid,
            self.study.patient_id,
            sop_classes_by_series=group_sop_classes(self.instances),
        )

    @property
    def expected_count(self) -> int | None:
        """The number of instances to expect, None if unknown."""
        return len(self.listed_uids) or self.study.instance_count

    def admit(self, arrival: InstanceInfo, header: Header) -> InstanceAdmission:
        """Admit an instance of this study; raises InstanceRefused for any other."""
        if header[_STUDY_UID] != self.study.study_uid or (
            self.listed_uids and arrival.sop_uid not in self.listed_uids
        ):
            raise InstanceRefused("it was not requested", status=_NOT_REQUESTED)
        return InstanceAdmission()


class _RecordingSink:
    """A sink around the store that records the instances, and their senders."""

    def __init__(self, store: Sink, context: CheckContext) -> None:
        self.stored: dict[str, tuple[InstanceInfo, Receipt]] = {}
        self.last_activity = time.monotonic()
        self._store = store
        self._record_received = context.request_limits.record_received
        self._changed = threading.Condition()

    def begin(self, arrival: InstanceInfo) -> Writer:
        """Start one instance."""
        return _RecordingWriter(self._store.begin(arrival), arrival, self)

    def record_bytes(self, size: int) -> None:
        """Record that bytes have arrived."""
        self.last_activity = time.monotonic()
        self._record_received(size)

    def record_instance(self, arrival: InstanceInfo, receipt: Receipt) -> None:
        """Record an instance that has been stored."""
        with self._changed:
            self.stored[receipt.ref.sop_uid] = arrival, receipt
            self.last_activity = time.monotonic()
            self._changed.notify_all()

    def wait_for_late_stores(self, expected: int | None, timeout: float) -> None:
        """Wait until all have arrived, or none has for ``timeout`` seconds: some may follow the response."""
        done = time.monotonic()
        with self._changed:
            while expected is None or len(self.stored) < expected:
                left = max(done, self.last_activity) + timeout - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)


class _RecordingWriter:
    def __init__(self, inner: Writer, arrival: InstanceInfo, sink: _RecordingSink) -> None:
        self.abort = inner.abort
        self._inner = inner
        self._arrival = arrival
        self._sink = sink

    def write(self, *pieces: memoryview) -> None:
        size = sum(map(len, pieces))
        self._inner.write(*pieces)
        self._sink.record_bytes(size)

    def commit(self) -> Receipt:
        receipt = self._inner.commit()
        self._sink.record_instance(self._arrival, receipt)
        return receipt


class _SilenceMonitor:
    """Gives up after ``silence`` seconds without a response or a byte."""

    def __init__(self, sink: _RecordingSink, silence: float) -> None:
        self._sink = sink
        self._silence = silence
        self._last_response = time.monotonic()

    def has_received(self) -> bool:
        return False

    def on_request(self, _message_id: int) -> None:
        """Do nothing."""

    def on_activity(self, _completed: int | None, _remaining: int | None) -> None:
        self._last_response = time.monotonic()

    def next_action(self) -> MonitorAction:
        silence = time.monotonic() - max(self._last_response, self._sink.last_activity)
        return MonitorAction.CANCEL if silence > self._silence else MonitorAction.WAIT


def try_move(context: CheckContext, expected: ExpectedStudy) -> list[RetrievalTrial]:
    """Try a C-MOVE; if senders at other addresses were refused, try once more and admit them.

    Only listed instances that then arrive from there show that the addresses are the archive's. Raises
    StartError.
    """
    first = _try_move_once(context, expected, ())
    # A refused sender may be a stranger; the archive alone has the instances that it listed.
    refused_addresses = {one.address for one in first.refused_senders if "address" in one.reason}
    if not refused_addresses:
        return [first]
    more = [ip_network(address.partition("%")[0]) for address in refused_addresses]
    return [first, _try_move_once(context, expected, more)]


def try_get(context: CheckContext, expected: ExpectedStudy) -> RetrievalTrial:
    """Try a C-GET, which needs no receiver; raises ArchiveError."""
    with _temporary_folder(context.folder) as folder:
        sink = _RecordingSink(_make_store(folder, expected), context)
        result = _retrieve(context, expected, sink, "get")
        return RetrievalTrial(result, expected.expected_count, tuple(sink.stored.values()))


def _try_move_once(
    context: CheckContext, expected: ExpectedStudy, extra_networks: Networks
) -> RetrievalTrial:
    refused: list[SenderRejected] = []
    with _temporary_folder(context.folder) as folder:
        sink = _RecordingSink(_make_store(folder, expected), context)
        receiver = _make_receiver(context, sink, refused, extra_networks)
        receiver.start()
        try:
            result = _retrieve(context, expected, sink, "move")
            sink.wait_for_late_stores(
                expected.expected_count, _late_store_timeout(result, context.profile.settle)
            )
        finally:
            receiver.stop(_STOP_TIMEOUT)
        arrived = tuple(sink.stored.values())
    return RetrievalTrial(
        result, expected.expected_count, arrived, tuple(refused), receiver.stats.rejected_instances
    )


def _late_store_timeout(result: RetrieveResult, settle: float) -> float:
    """Return the seconds to wait for late stores: few where the archive reports that it sent nothing."""
    nothing_sent = result.verdict is not Verdict.SUCCESS and not result.completed
    return min(settle, _NOTHING_SENT_TIMEOUT if nothing_sent else _SILENCE_TIMEOUT)


def _retrieve(
    context: CheckContext, expected: ExpectedStudy, sink: _RecordingSink, transport: Literal["move", "get"]
) -> RetrieveResult:
    archive = context.open_archive(expected.model, retrieve=transport)
    monitor = _SilenceMonitor(sink, min(context.profile.silence, _SILENCE_TIMEOUT))
    try:
        with context.request_limits.acquire_retrieval():
            return archive.retrieve(expected.request, sink, monitor)
    finally:
        archive.close()


@contextmanager
def _temporary_folder(near: Path) -> Iterator[Path]:
    """Make a temporary folder on the disk that a job would fill."""
    with tempfile.TemporaryDirectory(prefix=".quarry-check-", dir=near) as path:
        yield Path(path)


def _make_store(folder: Path, expected: ExpectedStudy) -> InstanceStore:
    incoming = folder / "incoming"
    incoming.mkdir(mode=0o700)
    template = PathTemplate.parse(DEFAULT_FILEPATH)
    return InstanceStore(folder / "out", template, incoming=incoming, admit=expected.admit)


def _make_receiver(
    context: CheckContext, sink: Sink, refused: list[SenderRejected], extra_networks: Networks
) -> Receiver:
    profile, files = context.profile, context.settings.tls
    own = map(ip_network, resolve(profile.dimse_ae.host))
    admission = AccessPolicy(
        called=frozenset({context.local.title}), networks=(*own, *profile.senders, *extra_networks)
    )
    tls = None
    if profile.tls == "both" and files.certificate is not None:
        tls = acceptor_context(files.certificate, files.key, files.ca, profile=profile.tls_profile)
    return Receiver(context.local, sink, access_policy=admission, on_event=refused.append, tls=tls)
