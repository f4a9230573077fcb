"""Who is let in, and what becomes of instances: on time, late, and at the very moment of the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from dicom_quarry.cohort.exclusion_list import ExclusionList
from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.identity import IdentityCheck
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import InstanceInfo, OutcomeStatus, Receipt, Selection, StoreResult, Task
from dicom_quarry.wire.header_scan import ANYWHERE
from tests.ledger.helpers import (
    ARCHIVE,
    begin,
    conclude,
    end,
    missing_row,
    ref,
    request,
    resolve,
    stored_row,
    study,
    task_id,
)

ARRIVAL = InstanceInfo("1.2.840.10008.5.1.4.1.1.2", "1.2.1.1.1", "1.2.840.10008.1.2.1")


def receipt(
    study_uid: str, number: int, kept: StoreResult = StoreResult.STORED, folder: str = "f"
) -> Receipt:
    path = PurePosixPath(folder, f"{number}.dcm")
    return Receipt(
        ref(study_uid, number), "1.2.840.10008.1.2.1", path, 100 + number, bytes([number]) * 32, kept
    )


class Stored:
    """A store that has one instance ready."""

    def __init__(self, ready: Receipt) -> None:
        self.ready = ready
        self.committed = self.fails = False
        self.synced: list[PurePosixPath] = []
        self.discarded: list[PurePosixPath] = []

    def begin(self, _arrival: InstanceInfo) -> Stored:
        return self

    def write(self, *pieces: memoryview) -> None:
        raise AssertionError("nothing is written here")

    def commit(self) -> Receipt:
        self.committed = True
        return self.ready

    def abort(self) -> None:
        raise AssertionError("nothing is aborted here")

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        self.synced.extend(paths)
        if self.fails:
            raise InstanceRefused("the disk failed", status=0x0110)

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        self.discarded.extend(paths)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    begin(opened, [request(1, "A"), request(2, "B")])
    resolve(opened, request(1, "A"), study(1), study(2))
    yield opened
    opened.close()


@pytest.fixture
def deliveries(ledger: Ledger) -> InboundStudies:
    return InboundStudies(ledger, lambda task: {"Site": f"of {task.study.study_uid}"})


def commit(deliveries: InboundStudies, ready: Receipt) -> None:
    assert InboundSink(Stored(ready), deliveries).begin(ARRIVAL).commit() is ready


def task(ledger: Ledger, number: int) -> Task:
    found = ledger.task_of(f"1.2.{number}")
    assert found is not None
    return found


def view(ledger: Ledger) -> tuple[OutcomeStatus, int | None, int]:
    reader = LedgerReader(
        Path(str(ledger.database.read(lambda c: c.exec_driver_sql("PRAGMA database_list").one()[2])))
    )
    try:
        first = next(reader.studies())
        return first.outcome.status, first.expected, first.stored
    finally:
        reader.close()


def header(study_uid: str, series_uid: str = "1.2.1.1") -> dict[int, str]:
    return {0x0020000D: study_uid, 0x0020000E: series_uid}


def test_studies_of_this_job_are_let_in_awaited_or_not(ledger: Ledger, deliveries: InboundStudies) -> None:
    assert deliveries.admit(ARRIVAL, header("1.2.1")).cells == {"Site": "of 1.2.1"}
    delivery = deliveries.open(task(ledger, 1), ())
    assert deliveries.admit(ARRIVAL, header("1.2.1")).cells == {"Site": "of 1.2.1"}
    deliveries.close(delivery)
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    assert deliveries.admit(ARRIVAL, header("1.2.1")).cells == {"Site": "of 1.2.1"}


def test_what_nobody_asked_for_is_refused(ledger: Ledger, deliveries: InboundStudies) -> None:
    with pytest.raises(InstanceRefused) as refused:
        deliveries.admit(ARRIVAL, header("1.2.9"))
    assert refused.value.status == 0x0124
    ledger.resolve_request(request(2, "B"), ARCHIVE, [(study(3), Selection(frozenset({"1.2.3.1"})))]).result()
    deliveries.admit(ARRIVAL, header("1.2.3", "1.2.3.1"))
    with pytest.raises(InstanceRefused):
        deliveries.admit(ARRIVAL, header("1.2.3", "1.2.3.2"))


def test_the_folder_is_in_the_ledger_before_the_sender_is_told(
    ledger: Ledger, deliveries: InboundStudies, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = task(ledger, 1)
    delivery = deliveries.open(first, ())
    at_the_take: list[list[str]] = []
    real = delivery.add

    def take(receipt: Receipt) -> bool:
        at_the_take.append(ledger.folders_of(first.task_id))
        return real(receipt)

    monkeypatch.setattr(delivery, "add", take)
    commit(deliveries, receipt("1.2.1", 1))
    commit(deliveries, receipt("1.2.1", 2))
    commit(deliveries, receipt("1.2.1", 3, folder="g"))
    assert at_the_take == [["f"], ["f"], ["f", "g"]]
    assert set(delivery.receipts) == {"1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.3"}


def test_a_ledger_that_fails_keeps_the_sender_from_being_told(
    ledger: Ledger, deliveries: InboundStudies
) -> None:
    delivery = deliveries.open(task(ledger, 1), ())
    ledger.close()
    with pytest.raises(Exception, match="closed"):
        commit(deliveries, receipt("1.2.1", 1))
    assert not delivery.receipts


def test_what_comes_twice_is_one_and_a_conflict_is_counted(
    ledger: Ledger, deliveries: InboundStudies
) -> None:
    delivery = deliveries.open(task(ledger, 1), [receipt("1.2.1", 1)])
    commit(deliveries, receipt("1.2.1", 1, StoreResult.IDENTICAL))
    commit(deliveries, receipt("1.2.1", 1, StoreResult.OTHER_ENCODING))
    assert (len(delivery.receipts), delivery.conflicts) == (1, 0)
    commit(deliveries, receipt("1.2.1", 1, StoreResult.CONFLICT))
    assert (len(delivery.receipts), delivery.conflicts, delivery.received) == (1, 1, 3)
    assert delivery.receipts["1.2.1.1.1"].result is StoreResult.STORED


def test_late_for_a_task_that_waits(ledger: Ledger, deliveries: InboundStudies) -> None:
    commit(deliveries, receipt("1.2.1", 1))
    assert ledger.folders_of(task(ledger, 1).task_id) == ["f"], "where the next try will find it"
    assert view(ledger) == (OutcomeStatus.PENDING, None, 0)


def test_late_for_a_partial_task(ledger: Ledger, deliveries: InboundStudies) -> None:
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1), missing_row("1.2.1", 2), missing_row("1.2.1", 3)])
    commit(deliveries, receipt("1.2.1", 1, StoreResult.IDENTICAL))
    assert view(ledger) == (OutcomeStatus.PARTIAL, 3, 1), "it is nothing new"
    commit(deliveries, receipt("1.2.1", 2))
    assert view(ledger) == (OutcomeStatus.PENDING, 3, 2), "it was given up too early"
    assert task(ledger, 1) in ledger.waiting_tasks(0.0, 10)


def test_late_for_a_complete_task(ledger: Ledger, deliveries: InboundStudies) -> None:
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    commit(deliveries, receipt("1.2.1", 1, StoreResult.IDENTICAL))
    assert view(ledger) == (OutcomeStatus.COMPLETE, 1, 1)
    commit(deliveries, receipt("1.2.1", 5))
    assert view(ledger) == (OutcomeStatus.UNVERIFIED, 1, 2), "the list was not complete"
    assert task(ledger, 1) not in ledger.waiting_tasks(0.0, 10)


def test_what_arrives_before_the_end_is_decided_about(ledger: Ledger, deliveries: InboundStudies) -> None:
    delivery = deliveries.open(task(ledger, 1), ())
    commit(deliveries, receipt("1.2.1", 1))
    seen = delivery.received
    commit(deliveries, receipt("1.2.1", 2))
    assert not delivery.freeze(seen)
    commit(deliveries, receipt("1.2.1", 3))
    assert delivery.freeze(delivery.received)
    assert len(delivery.receipts) == 3


def test_what_arrives_while_the_task_is_concluded_is_in_the_ledger_afterwards(
    ledger: Ledger, deliveries: InboundStudies
) -> None:
    delivery = deliveries.open(task(ledger, 1), [receipt("1.2.1", 1)])
    assert delivery.freeze(0)
    told = threading.Event()

    def arrive() -> None:
        commit(deliveries, receipt("1.2.1", 2))
        told.set()

    sender = threading.Thread(target=arrive)
    sender.start()
    try:
        assert not told.wait(0.05), "its sender is not told yet"
        assert list(delivery.receipts) == ["1.2.1.1.1"]
        conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    finally:
        deliveries.close(delivery)
        sender.join(10)
    assert told.is_set()
    assert view(ledger) == (OutcomeStatus.UNVERIFIED, 1, 2)


def test_instances_go_to_the_delivery_of_their_study(ledger: Ledger, deliveries: InboundStudies) -> None:
    one, two = deliveries.open(task(ledger, 1), ()), deliveries.open(task(ledger, 2), ())
    commit(deliveries, receipt("1.2.2", 1))
    assert (len(one.receipts), len(two.receipts)) == (0, 1)
    assert next(iter(two.receipts.values())).ref == ref("1.2.2", 1)


class Taken(Stored):
    """A writer that notes what it was given."""

    def __init__(self, ready: Receipt) -> None:
        super().__init__(ready)
        self.taken: list[bytes] = []

    def write(self, *pieces: memoryview) -> None:
        self.taken += map(bytes, pieces)


def test_bytes_are_counted_once_they_are_written(deliveries: InboundStudies) -> None:
    store = Taken(receipt("1.2.1", 1))
    counted: list[tuple[int, int]] = []
    senders: list[InstanceInfo] = []

    def received(size: int) -> None:
        counted.append((size, len(store.taken)))

    def counting(arrival: InstanceInfo) -> Callable[[int], None]:
        senders.append(arrival)
        return received

    sink = InboundSink(store, deliveries, bandwidth_limiter_for=counting)
    writer = sink.begin(ARRIVAL)
    for piece in (b"abc", b"defgh"):
        writer.write(memoryview(piece))
    assert store.taken == [b"abc", b"defgh"]
    assert counted == [(3, 1), (5, 2)]
    assert senders == [ARRIVAL]


def excluding(ledger: Ledger) -> InboundStudies:
    listed = ExclusionList({"PatientID": frozenset({"OUT-1"}), "AccessionNumber": frozenset({"AX"})})
    return InboundStudies(ledger, lambda _task: {}, IdentityCheck(), listed)


@pytest.mark.parametrize(
    "told",
    [
        {0x00100020: "out-1 "},
        {0x00100020: "4711", 0x00101000: "9\\OUT-1"},
        {0x00080050: "AX"},
        {ANYWHERE | 0x00101000: "9\\oUt-1\u200b"},
        {ANYWHERE | 0x00080050: "AY\\AX"},
    ],
    ids=["patient", "other patient IDs", "accession", "patient in a sequence", "accession in a sequence"],
)
def test_who_is_excluded_is_refused_and_the_whole_study_with_it(ledger: Ledger, told: dict[int, str]) -> None:
    deliveries = excluding(ledger)
    delivery = deliveries.open(task(ledger, 1), ())
    deliveries.admit(ARRIVAL, header("1.2.1"))
    with pytest.raises(InstanceRefused) as refused:
        deliveries.admit(ARRIVAL, header("1.2.1") | told)
    assert refused.value.status == 0x0124
    assert delivery.exclusion in ("patient ID", "accession")
    with pytest.raises(InstanceRefused):
        deliveries.admit(ARRIVAL, header("1.2.1"))
    deliveries.admit(ARRIVAL, header("1.2.2"))


def test_a_study_that_ended_as_excluded_stays_so(ledger: Ledger) -> None:
    deliveries = excluding(ledger)
    with pytest.raises(InstanceRefused):
        deliveries.admit(ARRIVAL, header("1.2.1") | {0x00100020: "OUT-1"})
    ledger.conclude_task(
        task_id(ledger, "1.2.1"), end("excluded_on_arrival", {"keys": "patient ID"})
    ).result()
    with pytest.raises(InstanceRefused):
        excluding(ledger).admit(ARRIVAL, header("1.2.1"))


def test_what_an_earlier_run_left_is_looked_at(ledger: Ledger) -> None:
    left = replace(receipt("1.2.1", 1), patient_id="OUT-1")
    assert excluding(ledger).open(task(ledger, 1), [left]).exclusion == "patient ID"


def test_sequences_are_searched_only_for_an_exclusion_list(ledger: Ledger) -> None:
    assert InboundStudies(ledger, lambda _task: {}).tags == frozenset()
    assert {tag - ANYWHERE for tag in excluding(ledger).tags} == {0x00080050, 0x00100020, 0x00101000}


def test_a_late_instance_is_durable_before_it_is_recorded(ledger: Ledger, deliveries: InboundStudies) -> None:
    conclude(ledger, "1.2.1", [missing_row("1.2.1", 1)])
    store = Stored(receipt("1.2.1", 1))
    store.fails = True
    sink = InboundSink(store, deliveries)
    with pytest.raises(InstanceRefused):
        sink.begin(ARRIVAL).commit()
    assert store.synced == store.discarded == [store.ready.path]
    assert (view(ledger)[2], sink.totals, sink.refused) == (0, (0, 0), 1)
    store.fails = False
    sink.begin(ARRIVAL).commit()
    assert (view(ledger)[2], sink.totals[0]) == (1, 1)


def test_an_instance_in_time_is_durable_with_its_study(ledger: Ledger, deliveries: InboundStudies) -> None:
    study = deliveries.open(task(ledger, 1), [])
    store = Stored(receipt("1.2.1", 1))
    InboundSink(store, deliveries).begin(ARRIVAL).commit()
    repeated = receipt("1.2.1", 2, StoreResult.IDENTICAL)
    deliveries.record(repeated)
    assert (store.synced, study.unsynced) == ([], {store.ready.path: True, repeated.path: False})
    study.freeze()
    assert study.drop_unsynced() == ([ref("1.2.1", 1).sop_uid, ref("1.2.1", 2).sop_uid], [store.ready.path])
    assert (study.receipts, study.unsynced) == ({}, {})
