"""pynetdicom as the client of an archive, for tests that look at what the archive does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicom_quarry.demo.dimse_server import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    DemoArchive,
)
from dicom_quarry.demo.synthetic_studies import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PROFILES,
    RLE_LOSSLESS,
)
from tests.peers.process import wait_for


@dataclass
class Received:
    """What a Storage SCP of pynetdicom got, in order of arrival, and on how many associations."""

    port: int = 0
    requests: list[Any] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    associations: int = 0

    @property
    def uids(self) -> list[str]:
        return [str(request.AffectedSOPInstanceUID) for request in self.requests]


@contextmanager
def receiver(status: int = 0x0000) -> Iterator[Received]:
    """A Storage SCP that answers every instance with ``status``."""
    received = Received()

    def stored(event: Any) -> int:
        received.datasets.append(event.dataset)
        received.requests.append(event.request)
        return status

    def accepted(event: Any) -> None:
        received.associations += 1

    ae: Any = AE("RECEIVER")
    syntaxes = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, RLE_LOSSLESS]
    for sop_class in {kind.sop_class for kind in PROFILES.values()}:
        ae.add_supported_context(sop_class, syntaxes)
    handlers = [(evt.EVT_C_STORE, stored), (evt.EVT_ACCEPTED, accepted)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    received.port = server.server_address[1]
    try:
        yield received
    finally:
        ae.shutdown()


def request(archive: DemoArchive) -> Any:
    """An association with the archive, established or not."""
    ae: Any = AE("CLIENT")
    ae.dimse_timeout = ae.acse_timeout = 20
    for service in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE):
        ae.add_requested_context(service)

    def no_delay(event: Any) -> None:
        event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    return ae.associate(
        "127.0.0.1", archive.port, ae_title=archive.title, evt_handlers=[(evt.EVT_CONN_OPEN, no_delay)]
    )


@contextmanager
def associate(archive: DemoArchive) -> Iterator[Any]:
    """An established association with the archive."""
    assoc = request(archive)
    assert assoc.is_established
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def identifier(level: str, **keys: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def _await_reactor(assoc: Any) -> None:
    """Wait until pynetdicom's own thread goes on after an operation, or it takes the next response."""
    wait_for(lambda: not (assoc._is_paused and assoc.is_established), "pynetdicom's own thread")


def find(
    assoc: Any, level: str, *, model: str = STUDY_ROOT_FIND, **keys: object
) -> tuple[int, list[Dataset]]:
    """The final status of a C-FIND (-1: none came) and its answers."""
    answers: list[Dataset] = []
    _await_reactor(assoc)
    for status, answer in assoc.send_c_find(identifier(level, **keys), model):
        if answer is None:
            return int(getattr(status, "Status", -1)), answers
        answers.append(answer)
    raise AssertionError("a C-FIND without a final response")


def move(
    assoc: Any, level: str, *, to: str = "RECEIVER", model: str = STUDY_ROOT_MOVE, **keys: object
) -> list[tuple[Dataset, Dataset | None]]:
    """All responses of a C-MOVE, (status, identifier); the last is the final one, empty if none came."""
    _await_reactor(assoc)
    return list(assoc.send_c_move(identifier(level, **keys), to, model))


def counters(status: Dataset) -> tuple[int | None, ...]:
    """Completed, failed, warning and remaining sub-operations; None where they were not sent."""
    names = ("Completed", "Failed", "Warning", "Remaining")
    return tuple(status.get(f"NumberOf{name}Suboperations") for name in names)
