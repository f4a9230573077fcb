"""Every fault that archives are known for, against the whole product."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.matrix import SCENARIOS
from tests.faults.scenario import Scenario
from tests.faults.scenario_runner import play


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.item}-{scenario.name}")
def test_fault(scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play(scenario, tmp_path)
