"""What the tests of the DIMSE archive share: a watch, an adapter, scripts for the archive it talks to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest
from dicom_quarry.archive.dimse.archive import DimseArchive, QueryCapabilities
from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.model import AE, InstanceInfo, Writer
from tests.peers.relay import RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script

STUDY = RetrieveRequest("1.2")
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
#: Scripts answer queries for a study by series; test_dimse_capabilities.py has those for all at once.
BY_SERIES = QueryCapabilities(relational_queries=False)

BRISK = Timeouts(connect=5, associate=5, query=0.3, cancel=0.3)


class NoSink:
    def begin(self, arrival: InstanceInfo) -> Writer:
        raise AssertionError("C-MOVE brings nothing by way of the sink")


class Watching:
    """A watch that says what it is told to, and remembers the signs of life."""

    def __init__(self, *actions: MonitorAction) -> None:
        self.signs: list[tuple[int | None, int | None]] = []
        self.message_ids: list[int] = []
        self.asked = 0
        self._actions = list(actions)

    def has_received(self) -> bool:
        return False

    def on_activity(self, completed: int | None, remaining: int | None) -> None:
        self.signs.append((completed, remaining))

    def on_request(self, message_id: int) -> None:
        self.message_ids.append(message_id)

    def next_action(self) -> MonitorAction:
        self.asked += 1
        return self._actions.pop(0) if self._actions else MonitorAction.WAIT


@contextmanager
def archive(peer: AE, model: str = "study", **options: object) -> Iterator[DimseArchive]:
    one = DimseArchive(
        "main",
        peer,
        calling="QUARRY",
        destination="DEST",
        **{"model": model, "timeouts": BRISK, "capabilities": BY_SERIES, **options},  # type: ignore[arg-type]
    )
    try:
        yield one
    finally:
        one.close()


def study(uid: str, **more: str) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = uid
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def answering(*rows: Dataset | bytes, final: int = SUCCESS, comment: str = "") -> Script:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        for row in rows:
            peer.answer(request, PENDING, row)
        peer.answer(request, final, comment=comment)

    return script


def silent(peer: Conversation, request: RelayedMessage) -> None:
    peer.read()
