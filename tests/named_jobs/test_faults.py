"""Scenarios of the fault matrix, of different kinds, for jobs in a database: the same comes of them."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.faults.matrix import SCENARIOS
from tests.faults.scenario import Scenario
from tests.faults.scenario_runner import DEADLINE, play
from tests.faults.short_delays import hasten

_NAMES = {
    "abort-behind-every-answer",
    "A801",
    "success-all-failed",
    "unrequested",
    "duplicates",
    "key-ignored",
    "capped-silently",
    "find-fails-at-first",
    "one-accession-two-patients",
    "emoji-and-surrogates",
}
CHOSEN = [scenario for scenario in SCENARIOS if scenario.name in _NAMES]


def test_all_are_there() -> None:
    assert {scenario.name for scenario in CHOSEN} == _NAMES


@pytest.mark.timeout(DEADLINE)
@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: f"{scenario.item}-{scenario.name}")
def test_fault(scenario: Scenario, work: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch.setattr)
    play(scenario, work, job=f"fault-{secrets.token_hex(4)}", cluster={"ledger": database})
    assert not (work / "out" / ".quarry" / "ledger.db").exists()
