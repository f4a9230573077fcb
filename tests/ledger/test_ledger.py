"""The verbs: what may be done in which state, and what another try starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus, Selection
from dicom_quarry.outcomes import codes_of
from tests.ledger.helpers import (
    ARCHIVE,
    CT,
    attempt,
    begin,
    conclude,
    derive,
    end,
    missing_row,
    request,
    resolve,
    stored_row,
    study,
    task_id,
)


def test_rows_wait_in_their_order_and_those_with_the_same_keys_once(ledger: Ledger) -> None:
    rows = [request(1, "A"), request(2, "B"), request(3, "A"), request(4, problem="no"), request(5, "C")]
    begin(ledger, rows)
    assert [one.row for one in ledger.waiting_requests(10)] == [1, 2, 5]
    assert ledger.waiting_requests(1) == [rows[0]]
    assert ledger.cells_of(99) == ()


def test_a_row_and_its_like_are_resolved_together_and_once(ledger: Ledger) -> None:
    first, other, same = request(1, "A"), request(2, "B"), request(3, "A")
    begin(ledger, [first, other, same])
    resolve(ledger, first, study(1), study(2))
    assert [one.row for one in ledger.waiting_requests(10)] == [2]
    with pytest.raises(LedgerError, match="row 1 is not waiting"):
        resolve(ledger, first, study(3))
    with pytest.raises(LedgerError, match="row 1 is not waiting"):
        ledger.conclude_request(first, "study_not_found", keys="accession").result()
    assert ledger.task_of("1.2.3") is None, "what was refused left nothing"
    # A study that two rows share is one task.
    resolve(ledger, other, study(2))
    assert [task.study for task in ledger.waiting_tasks(0.0, 10)] == [study(1), study(2)]
    assert ledger.first_row(task_id(ledger, "1.2.2")) == 1
    assert ledger.cells_of(task_id(ledger, "1.2.2")) == first.cells


def test_a_task_ends_once(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    rows = [stored_row("1.2.1", 1)]
    conclude(ledger, "1.2.1", rows)
    with pytest.raises(LedgerError, match="is concluded already"):
        ledger.conclude_task(
            task_id(ledger, "1.2.1"), end("instances_missing", {"missing": 1, "expected": 1})
        ).result()
    assert ledger.waiting_tasks(1e12, 10) == []
    assert ledger.next_due() is None


def test_what_was_refused_changes_nothing(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    before = list(reader.instances(derive)), list(reader.studies())
    with pytest.raises(LedgerError):
        conclude(ledger, "1.2.1", [stored_row("1.2.1", 2), missing_row("1.2.1", 3)])
    assert (list(reader.instances(derive)), list(reader.studies())) == before


def test_a_postponed_task_waits_until_its_time(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    first, second = ledger.waiting_tasks(0.0, 10)
    ledger.postpone_task(first.task_id, 1000.0)
    assert ledger.waiting_tasks(999.0, 10) == [second]
    assert ledger.waiting_tasks(1000.0, 10) == [first, second]
    ledger.postpone_task(second.task_id, 500.0)
    assert ledger.next_due() == 500.0


def test_selections_are_tasks_of_their_own(ledger: Ledger) -> None:
    whole, part = request(1, "A"), request(2, "B")
    begin(ledger, [whole, part])
    resolve(ledger, whole, study(1))
    chosen = Selection(frozenset({"1.2.1.8", "1.2.1.9"}))
    ledger.resolve_request(part, ARCHIVE, [(study(1), chosen)]).result()
    assert [task.selection for task in ledger.waiting_tasks(0.0, 10)] == [Selection(), chosen]


def test_folders_are_known_until_the_task_is_proved(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    for uid in ("1.2.1", "1.2.2"):
        ledger.add_folders(task_id(ledger, uid), [f"{uid}/s"]).result()
        ledger.add_folders(task_id(ledger, uid), [f"{uid}/s"]).result()
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    conclude(ledger, "1.2.2", [stored_row("1.2.2", 1), missing_row("1.2.2", 2)])
    assert ledger.folders_of(task_id(ledger, "1.2.1")) == []
    assert ledger.folders_of(task_id(ledger, "1.2.2")) == ["1.2.2/s"]


def test_the_number_of_a_uid_is_remembered_once_it_is_committed(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2), study(3))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])

    def of_class(uid: str, sop_class: str) -> list[InstanceRow]:
        row = stored_row(uid, 1)
        return [replace(row, ref=replace(row.ref, sop_class=sop_class))]

    with pytest.raises(Exception, match=r"UNIQUE|duplicate key"):
        conclude(ledger, "1.2.2", of_class("1.2.2", "1.9") * 2)
    conclude(ledger, "1.2.2", of_class("1.2.2", "1.8"))
    conclude(ledger, "1.2.3", of_class("1.2.3", "1.9"))
    assert [one.ref.sop_class for one in reader.instances(derive)] == [CT, "1.8", "1.9"]


# -- another try


def test_retry_takes_up_what_ended_in_these_words(ledger: Ledger, reader: LedgerReader) -> None:
    rows = [request(1, "A"), request(2, "B"), request(3, "C"), request(4, "B")]
    begin(ledger, rows)
    resolve(ledger, rows[0], study(1), study(2))
    ledger.conclude_request(rows[1], "study_not_found", keys="accession").result()
    ledger.conclude_request(rows[2], "several_patients", keys="accession", patients=2).result()
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    conclude(ledger, "1.2.2", [missing_row("1.2.2", 1)])
    assert reader.counts().is_finished
    assert ledger.retry(codes_of({OutcomeStatus.PARTIAL, OutcomeStatus.NOT_FOUND})) == 3, (
        "a study, and a row with its like"
    )
    assert [task.study.study_uid for task in ledger.waiting_tasks(0.0, 10)] == ["1.2.2"]
    assert [one.row for one in ledger.waiting_requests(10)] == [2]
    counts = reader.counts()
    assert not counts.is_finished
    assert counts.rows_by_status == {OutcomeStatus.PENDING: 3, OutcomeStatus.SEVERAL_PATIENTS: 1}
    assert [view.outcome.status for view in reader.rows()] == [
        OutcomeStatus.PENDING,
        OutcomeStatus.PENDING,
        OutcomeStatus.SEVERAL_PATIENTS,
        OutcomeStatus.PENDING,
    ]


def test_a_row_that_cannot_be_used_is_never_asked_for(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, problem="no accession"), request(2, "A")])
    assert ledger.retry(codes_of(frozenset(OutcomeStatus))) == 0
    assert [one.row for one in ledger.waiting_requests(10)] == [2], (
        "its keys are empty: that means everything"
    )
    assert next(reader.rows()).outcome.status is OutcomeStatus.INVALID_ROW


def test_what_is_tried_again_is_not_proved_any_more(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    assert next(reader.rows()).proved_at is not None
    assert ledger.retry(codes_of({OutcomeStatus.COMPLETE})) == 1
    view = next(reader.rows())
    assert (view.outcome.status, view.proved_at) == (OutcomeStatus.PENDING, None)


# -- strikes: how often in a row the archive sent nothing


def _one_task(ledger: Ledger) -> int:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    return task_id(ledger, "1.2.1")


def test_strikes_count_rounds_not_questions(ledger: Ledger) -> None:
    task = _one_task(ledger)
    assert ledger.task_history(task).fruitless_rounds == {}
    ledger.record_round(task, [attempt(0)]).result()
    ledger.record_round(task, [attempt(0, level="SERIES") for _ in range(10)]).result()
    assert ledger.task_history(task).fruitless_rounds == {"move": 2}


def test_a_gain_and_a_retry_wipe_strikes_out(ledger: Ledger) -> None:
    task = _one_task(ledger)
    ledger.record_round(task, [attempt(0)]).result()
    ledger.record_round(task, [attempt(5), attempt(0)]).result()
    assert ledger.task_history(task).fruitless_rounds == {}, (
        "of one round, a question that brought something speaks for all"
    )
    ledger.record_round(task, [attempt(0)]).result()
    assert ledger.task_history(task).fruitless_rounds == {"move": 1}
    conclude(ledger, "1.2.1", [missing_row("1.2.1", 1)])
    ledger.retry(codes_of({OutcomeStatus.PARTIAL}))
    assert ledger.task_history(task).fruitless_rounds == {}
    ledger.record_round(task, [attempt(0)]).result()
    assert ledger.task_history(task).fruitless_rounds == {"move": 1}


def test_strikes_are_of_one_task(ledger: Ledger) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    ledger.record_round(task_id(ledger, "1.2.1"), [attempt(0)]).result()
    assert ledger.task_history(task_id(ledger, "1.2.2")).fruitless_rounds == {}


def test_attempts_are_told_of_a_study_without_the_marks_of_a_retry(
    ledger: Ledger, reader: LedgerReader
) -> None:
    task = _one_task(ledger)
    ledger.record_round(task, [attempt(0), attempt(1)]).result()
    conclude(ledger, "1.2.1", [missing_row("1.2.1", 1)])
    ledger.retry(codes_of({OutcomeStatus.PARTIAL}))
    assert next(reader.studies()).attempts == 2


# -- instances that come when nobody waits for them


def test_late_for_a_task_in_wait_only_its_folder_is_noted(ledger: Ledger, reader: LedgerReader) -> None:
    task = _one_task(ledger)
    ledger.add_late_instance(task, stored_row("1.2.1", 1, path="f/1"), "f")
    assert ledger.folders_of(task) == ["f"]
    assert list(reader.instances(derive)) == []


def test_late_for_what_was_given_up_so_it_is_taken_up_again(ledger: Ledger, reader: LedgerReader) -> None:
    task = _one_task(ledger)
    for _ in range(9):
        ledger.record_round(task, [attempt(0)]).result()
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1), missing_row("1.2.1", 2), missing_row("1.2.1", 3)])
    ledger.add_late_instance(task, stored_row("1.2.1", 2, listed=False, path="f/2"), "f")
    assert [one.task_id for one in ledger.waiting_tasks(0.0, 10)] == [task]
    view = next(reader.studies())
    assert (view.outcome.status, view.stored, view.size, view.expected) == (OutcomeStatus.PENDING, 2, 203, 3)
    assert not reader.counts().is_finished
    assert ledger.task_history(task).fruitless_rounds == {}, "that it came is a gain"


def test_late_for_a_complete_task_is_more_than_the_archive_listed(
    ledger: Ledger, reader: LedgerReader
) -> None:
    task = _one_task(ledger)
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    ledger.add_late_instance(task, stored_row("1.2.1", 7, listed=False, path="f/7"), "f")
    view = next(reader.studies())
    assert (view.outcome.code, view.expected, view.stored, view.size) == ("unlisted_arrived", 1, 2, 208)
    assert view.outcome.reason.startswith("1 instance arrived that")
    assert [str(one.path) for one in reader.instances(derive)] == ["4711/1.2.1/1.2.1.1.1.dcm", "f/7"]
    assert ledger.waiting_tasks(0.0, 10) == []


def test_late_what_is_known_as_stored_stays_as_it_is(ledger: Ledger, reader: LedgerReader) -> None:
    task = _one_task(ledger)
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    before = list(reader.instances(derive))
    ledger.add_late_instance(task, stored_row("1.2.1", 1, listed=False, path="f/conflict"), "f")
    assert list(reader.instances(derive)) == before


def test_facts_replace_earlier_ones(ledger: Ledger) -> None:
    ledger.set_metadata(a="1", b="2")
    ledger.set_metadata(b="3")
    assert ledger.metadata() == {"a": "1", "b": "3"}
