"""The user's table in the ledger, and its exchange for a newer one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, select

from dicom_quarry.ledger.cohort_rows import CohortChange, insert_rows, replace_rows
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.schema import metadata, requests
from dicom_quarry.model import OutcomeStatus, Request
from tests.ledger.helpers import begin, conclude, derive, request, resolve, stored_row, study


def exchange(ledger: Ledger, *rows: Request) -> CohortChange:
    return ledger.database.write(lambda c: replace_rows(c, rows))


def table(*accessions: str) -> list[Request]:
    return [
        request(row, "" if one == "!" else one, problem="no" if one == "!" else "")
        for row, one in enumerate(accessions, 1)
    ]


def test_what_is_known_of_a_row_goes_with_its_keys(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, table("A", "B", "C", "!"))
    resolve(ledger, request(1, "A"), study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    ledger.conclude_request(request(2, "B"), "study_not_found", keys="accession").result()
    assert exchange(ledger, *table("C", "!", "A", "A", "B", "D")) == CohortChange(2, 0, 0)
    assert [(view.row, view.outcome.status, view.same_as_row) for view in reader.rows()] == [
        (1, OutcomeStatus.PENDING, None),
        (2, OutcomeStatus.INVALID_ROW, None),
        (3, OutcomeStatus.COMPLETE, None),
        (4, OutcomeStatus.COMPLETE, 3),
        (5, OutcomeStatus.NOT_FOUND, None),
        (6, OutcomeStatus.PENDING, None),
    ]
    assert [one.row for one in ledger.waiting_requests(10)] == [1, 6]
    assert ledger.waiting_tasks(0.0, 10) == [], "a known study is not fetched again"


def test_a_study_that_nobody_asks_for_any_more_is_not_fetched_and_what_is_here_stays(
    ledger: Ledger, reader: LedgerReader
) -> None:
    begin(ledger, table("A", "B"))
    resolve(ledger, request(1, "A"), study(1), study(2))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    assert exchange(ledger, *table("B")) == CohortChange(0, 1, 0)
    assert ledger.waiting_tasks(0.0, 10) == []
    assert ledger.next_due() is None
    assert len(list(reader.instances(derive))) == 1
    assert reader.counts().studies == 0
    # Asked for again, it is known: what was fetched is not fetched again, what was not is.
    exchange(ledger, *table("A", "B"))
    resolve(ledger, request(1, "A"), study(1), study(2))
    assert [task.study.study_uid for task in ledger.waiting_tasks(0.0, 10)] == ["1.2.2"]


def test_a_row_that_was_corrected_is_asked_for(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, table("!", "!", "A"))
    assert exchange(ledger, *table("B", "!", "A")) == CohortChange(0, 0, 1)
    assert [one.row for one in ledger.waiting_requests(10)] == [1, 3]
    assert exchange(ledger, *table("!", "!", "A")) == CohortChange(0, 0, 1)
    assert [view.outcome.status for view in reader.rows()] == [
        OutcomeStatus.INVALID_ROW,
        OutcomeStatus.INVALID_ROW,
        OutcomeStatus.PENDING,
    ]


def test_rows_are_entered_in_batches(ledger: Ledger) -> None:
    begin(ledger, (request(row, f"A{row % 7}") for row in range(1, 20_010)))
    assert len(ledger.waiting_requests(100)) == 7
    cells = select(requests.c.cells).where(requests.c.row == 20_009)
    assert ledger.database.read(lambda c: c.scalar(cells)) == '["A3"]'


letters = st.lists(st.sampled_from("ABCD!"), max_size=6)


def changed(connection: Connection, old: Sequence[str], new: Sequence[str]) -> CohortChange:
    insert_rows(connection, table(*old))
    return replace_rows(connection, table(*new))


@settings(deadline=None)
@given(letters, letters)
def test_the_counts_of_a_change_add_up(old: list[str], new: list[str]) -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        change = changed(connection, old, new)
    engine.dispose()
    assert len(old) + change.added - change.removed == len(new)
    assert change.added + change.changed == (Counter(new) - Counter(old)).total()
    assert change.removed + change.changed == (Counter(old) - Counter(new)).total()
    assert min(change.added, change.removed, change.changed) >= 0
    if len(old) == len(new) and all(a == b or a not in new for a, b in zip(old, new, strict=True)):
        assert change.added == change.removed, "each row was changed in its place, or moved"
