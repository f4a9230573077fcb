"""Claims on rows and tasks: each is one worker's, and what a worker says too late changes nothing."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_quarry.errors import ClaimLost
from dicom_quarry.ledger.cohort_rows import replace_rows
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.merged_answers import note_merging
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus, Selection, Task
from dicom_quarry.system.worker_identity import is_gone, new_worker_identity
from tests.ledger.helpers import ARCHIVE, attempt, begin, end, raw_query, request, resolve, stored_row, study

NOW = 1e9

Open = Callable[[str], Ledger]


@pytest.fixture
def worker(location: LedgerLocation) -> Iterator[Open]:
    """Opens the ledger as a worker of a name."""
    opened: list[Ledger] = []

    def open_as(name: str) -> Ledger:
        opened.append(Ledger(location, name))
        return opened[-1]

    yield open_as
    for ledger in opened:
        ledger.close()


def enter(ledger: Ledger, count: int) -> None:
    """Enter rows that are resolved to a study each."""
    rows = [request(number, f"A{number}") for number in range(1, count + 1)]
    begin(ledger, rows)
    for number, row in enumerate(rows, 1):
        resolve(ledger, row, study(number))


def conclude(ledger: Ledger, task: Task) -> None:
    rows = [stored_row(task.study.study_uid, number) for number in (1, 2, 3)]
    result = end("all_listed_stored", {"instances": 3}, rows)
    ledger.conclude_task(task.task_id, result, task.claim).result()


def claimed(location: LedgerLocation) -> list[tuple[str, int, str]]:
    return [tuple(row) for row in raw_query(location, "select kind, item, worker from claims order by 1, 2")]


def test_a_task_is_one_workers(worker: Open, location: LedgerLocation) -> None:
    first, second = worker("first"), worker("second")
    enter(first, 3)
    mine, yours = first.claims.take_tasks(NOW, 2), second.claims.take_tasks(NOW, 2)
    assert [task.task_id for task in mine + yours] == [1, 2, 3]
    assert second.claims.take_tasks(NOW, 2) == first.claims.take_tasks(NOW, 2) == []
    assert claimed(location) == [("task", 1, "first"), ("task", 2, "first"), ("task", 3, "second")]
    assert first.next_due() is None, "all are in work"
    for ledger, tasks in ((first, mine), (second, yours)):
        for task in tasks:
            conclude(ledger, task)
    assert claimed(location) == []


def test_workers_that_take_at_once_share(worker: Open) -> None:
    workers = [worker(f"worker {number}") for number in range(3)]
    enter(workers[0], 40)

    def take(ledger: Ledger) -> list[int]:
        taken: list[int] = []
        while tasks := ledger.claims.take_tasks(NOW, 3):
            taken += [task.task_id for task in tasks]
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = list(itertools.chain.from_iterable(pool.map(take, workers)))
    assert sorted(taken) == list(range(1, 41))


def test_a_row_is_one_workers_with_the_studies_that_it_finds(worker: Open, location: LedgerLocation) -> None:
    first, second = worker("first"), worker("second")
    begin(first, [request(1, "A1"), request(2, "A1"), request(3, "A3")])
    (row,), (other,) = first.claims.take_requests(1), second.claims.take_requests(5)
    assert (row.row, other.row) == (1, 3), "row 2 has the keys of row 1"
    rows = first.resolve_request(row, ARCHIVE, [(study(1), Selection()), (study(2), Selection())])
    assert rows.result() == 2
    second.conclude_request(other, "study_not_found").result()
    assert claimed(location) == [("task", 1, "first"), ("task", 2, "first")]
    assert second.claims.take_tasks(NOW, 5) == []
    tasks = first.claims.take_tasks(NOW, 5)
    assert [(task.study, task.archive) for task in tasks] == [(study(1), ARCHIVE), (study(2), ARCHIVE)]
    for task in tasks:
        conclude(first, task)


def test_of_many_studies_of_a_row_some_are_left_for_others(worker: Open) -> None:
    first, second = worker("first"), worker("second")
    begin(first, [request(1, "A1")])
    (row,) = first.claims.take_requests(1)
    found = [(study(number), Selection()) for number in range(1, 21)]
    first.resolve_request(row, ARCHIVE, found).result()
    assert len(second.claims.take_tasks(NOW, 100)) == 4
    assert len(first.claims.take_tasks(NOW, 100)) == 16


def test_a_worker_that_claims_nothing_ahead_leaves_all_to_others(location: LedgerLocation) -> None:
    ledger = Ledger(location, "first", claims_ahead=0)
    begin(ledger, [request(1, "A1")])
    (row,) = ledger.claims.take_requests(1)
    ledger.resolve_request(row, ARCHIVE, [(study(1), Selection())]).result()
    assert claimed(location) == []
    ledger.close()


@pytest.mark.parametrize("ahead", [True, False])
def test_tasks_of_one_archive_can_be_taken(worker: Open, ahead: bool) -> None:
    ledger = worker("first")
    begin(ledger, [request(1, "A1"), request(2, "A2")])
    for row, archive in zip(ledger.claims.take_requests(2), (ARCHIVE, "other"), strict=True):
        ledger.resolve_request(row, archive, [(study(row.row), Selection())]).result()
    if not ahead:
        ledger.claims.give_back()
    assert [task.task_id for task in ledger.claims.take_tasks(NOW, 5, "other")] == [2]
    assert [task.task_id for task in ledger.claims.take_tasks(NOW, 5, ARCHIVE)] == [1]
    assert ledger.claims.take_tasks(NOW, 5, "other") == []


def test_a_study_that_another_row_has_found_is_not_claimed_again(worker: Open) -> None:
    ledger = worker("first")
    begin(ledger, [request(1, "A1"), request(2, "A2")])
    rows = ledger.claims.take_requests(2)
    for row in rows:
        ledger.resolve_request(row, ARCHIVE, [(study(1), Selection())]).result()
    assert len(ledger.claims.take_tasks(NOW, 5)) == 1


def lose(worker: Open, ledger: Ledger) -> tuple[Ledger, Task, Task]:
    """Another worker takes over the one task; returns it, the task as the first has it, and its own."""
    enter(ledger, 1)
    (old,) = ledger.claims.take_tasks(NOW, 1)
    other = worker("second")
    other.claims.free(lambda name: name == "first")
    (new,) = other.claims.take_tasks(NOW, 1)
    return other, old, new


def test_a_late_word_is_refused(worker: Open, location: LedgerLocation) -> None:
    first = worker("first")
    second, old, new = lose(worker, first)
    with pytest.raises(ClaimLost):
        conclude(first, old)
    with pytest.raises(ClaimLost):
        first.postpone_task(old.task_id, 2e9, old.claim)
    with pytest.raises(ClaimLost):
        first.forget_stored(old.task_id, 0.0, "the disk failed", old.claim)
    with pytest.raises(ClaimLost):
        first.record_round(old.task_id, [attempt()], old.claim).result()
    assert claimed(location) == [("task", 1, "second")]
    assert second.task_history(new.task_id).fruitless_rounds == {}
    conclude(second, new)
    with pytest.raises(ClaimLost):
        conclude(first, old)
    reader = LedgerReader(location)
    assert [view.outcome.status for view in reader.studies()] == [OutcomeStatus.COMPLETE]
    assert len(list(reader.instances(lambda *_: Path()))) == 3  # type: ignore[arg-type]
    reader.close()


def test_a_late_word_is_refused_when_the_worker_has_it_again(worker: Open) -> None:
    first = worker("first")
    second, old, new = lose(worker, first)
    second.postpone_task(new.task_id, 1.0, new.claim)
    (again,) = first.claims.take_tasks(NOW, 1)
    assert again == old
    with pytest.raises(ClaimLost):
        conclude(first, old)
    conclude(first, again)


def test_a_late_answer_about_a_row_is_refused(worker: Open) -> None:
    first, second = worker("first"), worker("second")
    begin(first, [request(1, "A1")])
    (old,) = first.claims.take_requests(1)
    second.claims.free(lambda _: True)
    (new,) = second.claims.take_requests(1)
    with pytest.raises(ClaimLost):
        first.resolve_request(old, ARCHIVE, [(study(1), Selection())]).result()
    with pytest.raises(ClaimLost):
        first.conclude_request(old, "study_not_found").result()
    assert first.claims.take_tasks(NOW, 1) == [], "what was refused has claimed nothing"
    second.conclude_request(new, "study_not_found").result()


def test_an_answer_about_a_row_of_the_former_table_is_refused(worker: Open) -> None:
    ours = worker("a")
    begin(ours, [request(1, "A"), request(2, "B")])
    (first, _) = ours.claims.take_requests(2)
    worker("b").database.write(lambda c: replace_rows(c, [request(1, "C"), request(2, "A")]))
    with pytest.raises(ClaimLost):
        ours.resolve_request(first, ARCHIVE, [(study(1), Selection())]).result()
    assert [one.row for one in ours.claims.take_requests(9)] == [1, 2]


@pytest.mark.parametrize("how", ["postponed", "queried again", "given back"])
def test_what_is_not_in_work_any_more_is_anybodys(worker: Open, location: LedgerLocation, how: str) -> None:
    first, second = worker("first"), worker("second")
    enter(first, 1)
    (task,) = first.claims.take_tasks(NOW, 1)
    if how == "postponed":
        first.postpone_task(task.task_id, NOW + 5, task.claim)
        assert second.claims.take_tasks(NOW, 1) == []
        assert second.claims.take_tasks(NOW + 5, 1) == [task]
    elif how == "queried again":
        assert note_merging(first.database, ARCHIVE)
        first.claims.give_back_items("task", [task.task_id])
        (row,) = second.claims.take_requests(1)
        second.resolve_request(row, ARCHIVE, [(study(1), Selection())]).result()
        assert second.claims.take_tasks(NOW, 1) == [task]
    else:
        first.claims.give_back()
        first.claims.give_back()
        assert second.claims.take_tasks(NOW, 1) == [task]
    assert claimed(location) == [("task", 1, "second")]


def test_two_openings_of_one_process_are_two_workers(location: LedgerLocation) -> None:
    first = Ledger(location)
    enter(first, 1)
    first.claims.take_tasks(NOW, 1)
    first.close()
    second = Ledger(location)
    assert second.claims.take_tasks(NOW, 1) == []
    second.claims.free(lambda _: True)
    assert len(second.claims.take_tasks(NOW, 1)) == 1
    second.close()


def test_only_the_claims_of_workers_that_are_gone_are_freed(worker: Open, location: LedgerLocation) -> None:
    first, second = worker("first"), worker("second")
    enter(first, 2)
    first.claims.take_tasks(NOW, 1)
    second.claims.take_tasks(NOW, 1)
    worker("third").claims.free(lambda name: name == "first")
    assert claimed(location) == [("task", 2, "second")]
    second.claims.free(lambda _: True)
    assert claimed(location) == [("task", 2, "second")], "its own stay"


def test_nothing_is_written_where_nothing_waits(worker: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = worker("first")
    enter(ledger, 1)
    ledger.postpone_task(1, NOW + 5)
    monkeypatch.setattr(ledger.database, "_append", lambda _: pytest.fail("a transaction"))
    assert ledger.claims.take_tasks(NOW, 1) == []
    assert ledger.claims.take_requests(1) == []
    ledger.claims.free(lambda _: True)
    ledger.claims.give_back()


def test_studies_that_are_claimed_with_their_rows_cost_no_transaction(
    worker: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = worker("first")
    begin(ledger, [request(1, "A1")])
    (row,) = ledger.claims.take_requests(1)
    ledger.resolve_request(row, ARCHIVE, [(study(1), Selection())]).result()
    monkeypatch.setattr(ledger.database, "_append", lambda _: pytest.fail("a transaction"))
    monkeypatch.setattr(ledger.database, "fetch_all", lambda *_, **__: pytest.fail("a query"))
    assert len(ledger.claims.take_tasks(NOW, 1)) == 1


_IDENTITY = """
from dicom_quarry.system.worker_identity import new_worker_identity
print(new_worker_identity(), flush=True)
input()
"""


def test_a_process_that_has_ended_is_gone() -> None:
    assert not is_gone(new_worker_identity())
    child = subprocess.Popen(
        [sys.executable, "-c", _IDENTITY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    identity = child.stdout.readline().strip()
    assert not is_gone(identity)
    child.communicate("\n", timeout=60)
    assert is_gone(identity)
    host, boot, space, pid, start, _ = new_worker_identity().split("/")
    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert is_gone(f"{host}/{boot}/{space}/{pid}/{int(start) + 1}/1"), "another process has the number now"
    assert is_gone(f"{host}/other/{space}/{pid}/{start}/1"), "the computer was started again"
    assert not is_gone(f"other/{boot}/{space}/{pid}/{start}/1"), "this host cannot know"
    assert not is_gone(f"{host}/{boot}/1/{pid}/{int(start) + 1}/1"), "nor can another container"
    assert not is_gone("")
