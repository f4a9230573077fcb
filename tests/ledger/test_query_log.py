"""The diary: written with what is written anyway, never by itself, and found again by the row's keys."""

from __future__ import annotations

from dataclasses import replace

from dicom_quarry.ledger.cohort_rows import replace_rows
from dicom_quarry.ledger.history import HistoryReader
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.query_log import Postponement, QueryLogEntry, log_postponement, log_query
from tests.ledger.helpers import attempt, begin, conclude, missing_row, request, resolve, stored_row, study

ASKED = QueryLogEntry("main", "study", "row", "STUDY", "AccessionNumber", 1.8e9, 0.25, 1, 1)


def queries(location: LedgerLocation, row: int) -> list[QueryLogEntry]:
    reader = HistoryReader(location, "mismatch")
    try:
        found = reader.row_history(row)
        return list(found.queries) if found else []
    finally:
        reader.close()


def test_it_waits_for_a_transaction_that_is_made_anyway(location: LedgerLocation) -> None:
    ledger = Ledger(location)
    begin(ledger, [request(1, "A")])
    log_query(ledger.database, ASKED, row=1)
    assert queries(location, 1) == []
    ledger.set_metadata(anything="else")
    assert queries(location, 1) == [ASKED]
    log_query(ledger.database, ASKED, row=1)
    ledger.close()
    assert queries(location, 1) == [ASKED, ASKED], "the end writes what is left"


def test_it_is_there_with_the_answer(location: LedgerLocation) -> None:
    ledger = Ledger(location)
    begin(ledger, [request(1, "A")])
    log_query(ledger.database, ASKED, row=1)
    resolve(ledger, request(1, "A"), study(1))
    assert queries(location, 1) == [ASKED]
    ledger.close()


def test_it_goes_with_the_keys_when_the_table_changes(location: LedgerLocation) -> None:
    ledger = Ledger(location)
    begin(ledger, [request(1, "A"), request(2, "B"), request(3, "C")])
    for row in (1, 2, 3):
        log_query(ledger.database, replace(ASKED, result_count=row), row=row)
    newer = [request(1, "NEW"), request(2, "C"), request(3, "A"), request(4, "C")]
    ledger.database.write(lambda connection: replace_rows(connection, newer))
    ledger.close()
    assert [[one.result_count for one in queries(location, row)] for row in (1, 2, 3, 4)] == [
        [],
        [3],
        [1],
        [3],
    ]


def test_a_study_has_its_rounds_pauses_and_first_missing_instances(location: LedgerLocation) -> None:
    ledger = Ledger(location)
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    ledger.record_round(1, [attempt(gained=1)])
    log_postponement(ledger.database, 1, Postponement(5.0, 10.0, "the archive is busy"))
    log_query(ledger.database, ASKED, task_id=1)
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1), *(missing_row("1.2.1", n) for n in range(2, 40))])
    ledger.retry({"instances_missing"})
    ledger.close()
    reader = HistoryReader(location, "mismatch")
    (found,) = reader.study_histories_of_rows([1])
    assert [number for number, _ in found.rounds] == [1]
    assert len(found.retried_at) == 1
    assert found.postponements == (Postponement(5.0, 10.0, "the archive is busy"),)
    assert found.queries == (ASKED,)
    assert (found.missing_count, len(found.missing)) == (38, 20)
    assert (reader.rows_of("1.2.1"), list(reader.study_histories("1.2.9"))) == ([1], [])
    reader.close()
