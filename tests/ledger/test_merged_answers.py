"""An archive that merges answers: all that it has answered so far is queried for again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dicom_quarry.errors import ClaimLost
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import LedgerLocation
from dicom_quarry.ledger.merged_answers import find_merging_archives, note_merging
from dicom_quarry.model import Selection
from tests.ledger.helpers import ARCHIVE, begin, conclude, raw_query, request, resolve, stored_row, study

OTHER = "other"


@pytest.fixture
def ledger(location: LedgerLocation) -> Iterator[Ledger]:
    """Rows: one of a stored study, one of another archive's, one without a match, one of several patients."""
    ledger = Ledger(location, "first")
    begin(ledger, [request(number, f"A{number}") for number in range(1, 7)])
    resolve(ledger, request(1, "A1"), study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", number) for number in (1, 2, 3)])
    ledger.resolve_request(request(2, "A2"), OTHER, [(study(2), Selection())]).result()
    ledger.conclude_request(request(3, "A3"), "study_not_found", keys="accession").result()
    ledger.conclude_request(request(4, "A4"), "several_patients", patients=2, keys="accession").result()
    resolve(ledger, request(5, "A5"), study(5))
    yield ledger
    ledger.close()


def waiting(location: LedgerLocation) -> list[int]:
    return [
        row for (row,) in raw_query(location, "select row from requests where state = 'waiting' order by row")
    ]


def test_what_the_archive_answered_waits_again(ledger: Ledger, location: LedgerLocation) -> None:
    assert waiting(location) == [6]
    assert note_merging(ledger.database, ARCHIVE)
    assert waiting(location) == [1, 4, 5, 6]
    assert find_merging_archives(ledger.database) == [ARCHIVE]
    # What is stored stays, and needs no other retrieval.
    (row, *_) = ledger.claims.take_requests(10)
    resolve(ledger, row, study(1), study(7))
    assert [one.study.study_uid for one in ledger.claims.take_tasks(1e9, 10)] == ["1.2.7"]


def test_it_is_done_once(ledger: Ledger, location: LedgerLocation) -> None:
    assert note_merging(ledger.database, ARCHIVE)
    resolve(ledger, request(1, "A1"), study(1))
    assert not note_merging(ledger.database, ARCHIVE)
    assert waiting(location) == [4, 5, 6]
    assert note_merging(ledger.database, OTHER)
    assert waiting(location) == [2, 4, 5, 6]


def test_a_worker_that_is_resolving_a_row_meanwhile_is_refused(
    ledger: Ledger, location: LedgerLocation
) -> None:
    second = Ledger(location, "second")
    (row,) = second.claims.take_requests(1)
    assert note_merging(ledger.database, ARCHIVE)
    with pytest.raises(ClaimLost):
        resolve(second, row, study(6))
    assert waiting(location) == [1, 4, 5, 6]
    second.close()


def test_another_worker_ends_what_a_killed_one_began(ledger: Ledger, location: LedgerLocation) -> None:
    assert note_merging(ledger.database, OTHER)
    ledger.set_metadata(**{f"merged answers: {ARCHIVE}": "found"})
    assert sorted(find_merging_archives(ledger.database)) == sorted([ARCHIVE, OTHER])
    assert waiting(location) == [1, 2, 4, 5, 6]
