"""The on-complete queue and releases in the ledger: one item for each proof; a release stays."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.on_complete_queue import OnCompleteItem, OnCompleteQueue
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.releases import Releases
from dicom_quarry.model import Selection
from tests.ledger.helpers import begin, conclude, derive, end, request, resolve, stored_row, study, task_id

UID = "1.2.1"


@pytest.fixture
def hands(ledger: Ledger) -> OnCompleteQueue:
    """Of a job with two studies, the first of them complete."""
    begin(ledger, [request(1, "A"), request(2, "B")])
    resolve(ledger, request(1, "A"), study(1))
    resolve(ledger, request(2, "B"), study(2))
    conclude(ledger, UID, [stored_row(UID, 1)])
    return OnCompleteQueue(ledger.database)


def due(hands: OnCompleteQueue, now: float = 100.0) -> OnCompleteItem:
    found = hands.next_due(now, ())
    assert found is not None
    return found


def states(reader: LedgerReader) -> list[str]:
    return [view.on_complete_state for view in reader.studies()]


def test_what_is_complete_is_handed_over_once(
    ledger: Ledger, reader: LedgerReader, hands: OnCompleteQueue
) -> None:
    assert hands.start_run(enabled=True) == 1
    one = due(hands)
    assert (one.study, one.rows, one.tries, one.instances) == (study(1), (1,), 0, 1)
    assert hands.next_due(100.0, {one.task_id}) is None
    assert not reader.counts().is_finished
    hands.mark_done(one, 200.0, released=False)
    assert hands.start_run(enabled=True) == 0
    hands.enqueue(one.task_id).result()
    assert states(reader) == ["done", ""]
    hands.enqueue(task_id(ledger, "1.2.2")).result()
    assert states(reader) == ["done", ""], "it is not complete"


def test_those_that_are_in_hand_do_not_hide_the_next(ledger: Ledger, hands: OnCompleteQueue) -> None:
    conclude(ledger, "1.2.2", [stored_row("1.2.2", 1)])
    assert hands.start_run(enabled=True) == 2
    first = due(hands)
    second = hands.next_due(100.0, {first.task_id})
    assert second is not None
    assert (second.study, second.first_row) == (study(2), 2)
    assert hands.next_due(100.0, {first.task_id, second.task_id}) is None


def test_a_new_proof_is_handed_over_again(
    ledger: Ledger, reader: LedgerReader, hands: OnCompleteQueue
) -> None:
    hands.start_run(enabled=True)
    first = due(hands)
    ledger.retry({"all_listed_stored"})
    fresh = end("all_listed_stored", {"instances": 1}, [stored_row(UID, 1)])
    ledger.conclude_task(first.task_id, replace(fresh, proved_at=1.6e9)).result()
    hands.enqueue(first.task_id).result()
    hands.mark_done(first, 200.0, released=False)
    assert due(hands).proof == 1.6e9, "the end of an earlier hand-over says nothing of it"


def test_a_failure_waits_its_time_and_the_next_run_has_all_patience(
    reader: LedgerReader, hands: OnCompleteQueue
) -> None:
    hands.start_run(enabled=True)
    hands.mark_failed(due(hands), "why", 100.0, 150.0)
    assert hands.next_due(149.0, ()) is None
    assert due(hands, 150.0).tries == 1
    hands.mark_failed(due(hands, 150.0), "why", 151.0, None)
    assert states(reader) == ["failed", ""]
    assert hands.count_waiting() == 0
    assert hands.start_run(enabled=True) == 1
    assert due(hands, 0.0).tries == 0


def test_without_a_command_nothing_waits(reader: LedgerReader, hands: OnCompleteQueue) -> None:
    hands.start_run(enabled=True)
    assert hands.start_run(enabled=False) == 0
    assert states(reader) == ["", ""]


def test_what_was_released_is_neither_fetched_nor_handed_over(
    ledger: Ledger, reader: LedgerReader, hands: OnCompleteQueue
) -> None:
    hands.start_run(enabled=True)
    one, releases = due(hands), Releases(ledger.database)
    assert [standing.study_uid for standing in releases.releasable_studies()] == [UID]
    assert releases.mark_released(UID, removing=True)
    assert not releases.mark_released("1.2.2", removing=False), "it is not complete"
    hands.mark_failed(one, "why", 100.0, None)
    assert states(reader) == ["done", ""], "its command has released it, however it ended"
    assert ledger.retry({"all_listed_stored"}) == 0
    assert ledger.task_of(UID) is None, "what comes late of it is not taken"
    assert [view.released for view in reader.instances(derive)] == [True]
    assert [standing.removing for standing in releases.releasable_studies()] == [True]
    releases.mark_removed([UID])
    assert list(releases.releasable_studies()) == []
    assert reader.counts().studies_released == 1


def test_a_study_is_complete_when_all_that_was_made_of_it_is(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A"), request(2, "B")])
    resolve(ledger, request(1, "A"), study(1))
    ledger.resolve_request(request(2, "B"), "other", [(study(1), Selection())]).result()
    releases = Releases(ledger.database)
    for archive in ("main", "other"):
        assert not releases.mark_released(UID, removing=False)
        (task,) = (one for one in ledger.waiting_tasks(0.0, 9) if one.archive == archive)
        ledger.conclude_task(
            task.task_id, end("all_listed_stored", {"instances": 1}, [stored_row(UID, 1)])
        ).result()
    assert releases.mark_released(UID, removing=False)


_WRITER = """
import sys
from pathlib import Path
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
name, *place = sys.argv[1:]
ledger = Ledger(PostgresLocation(*place) if len(place) == 2 else Path(place[0]))
for number in range(150):
    ledger.set_metadata(**{f"{name}-{number}": "x"})
ledger.close()
"""


def test_two_processes_write_to_one_ledger(ledger: Ledger, location: LedgerLocation) -> None:
    place = [str(location)] if isinstance(location, Path) else [location.url, location.schema]
    children = [subprocess.Popen([sys.executable, "-c", _WRITER, name, *place]) for name in ("a", "b")]
    for number in range(150):
        ledger.set_metadata(**{f"c-{number}": "x"})
    assert [child.wait(60) for child in children] == [0, 0]
    assert len(ledger.metadata()) == 450
