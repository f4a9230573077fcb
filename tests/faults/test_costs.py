"""What a study costs when nothing goes wrong: requests to the archive, and transactions of the ledger."""

from __future__ import annotations

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.ledger.database import Database
from tests.faults.scenario import COMPLETE, ArchiveRequests, by_accession
from tests.faults.scenario_runner import Stage, address, count_requests, outcomes
from tests.scripted.archive import ScriptedArchive

_STUDIES = tuple(generate_studies(12, seed=7, series=2, images=2))


@pytest.mark.parametrize(
    ("relational", "finds"),
    [
        # One query finds a study, one lists it; by series only until answers are known not to be merged.
        (None, (12, 1, 13)),
        (False, (12, 12, 24)),
    ],
)
def test_queries_and_transactions_of_a_study(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, relational: bool | None, finds: tuple[int, int, int]
) -> None:
    transactions = []
    commit = Database._commit

    def counted(database: Database, group: list[object]) -> None:
        transactions.append(len(group))
        commit(database, group)  # type: ignore[arg-type]

    monkeypatch.setattr(Database, "_commit", counted)
    with ScriptedArchive(_STUDIES, (), destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        result = stage.extract(by_accession(_STUDIES), {"main": address(archive)}, {"relational": relational})
        requests = count_requests(archive.log, _STUDIES)
    assert outcomes(result) == [COMPLETE] * len(_STUDIES)
    assert requests == ArchiveRequests(("STUDY",) * len(_STUDIES), finds, 3)
    # At most three for a study, of five changes: its row, its folders, its end with its round.
    print(f"{len(transactions)} transactions of {sum(transactions)} changes, {len(_STUDIES)} studies")
    assert len(transactions) <= 3 * len(_STUDIES)
