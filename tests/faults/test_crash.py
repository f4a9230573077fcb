"""Killed at random moments, over an archive that fails now and then; ``make soak`` does it 100 times."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.crashes import crash

from tests.faults.documented_tests import shows


@pytest.mark.timeout(240)
@shows(
    0,
    "kill -9 of the whole process group at random moments, faults on (a hundred times in make soak)",
    "the same command continues: nothing is lost; complete studies are whole and not retrieved again",
)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    lives = crash(tmp_path, kills=6)
    assert lives.kills == 6
    assert 0 < lives.complete_at_kill[-1] < lives.studies, "the kills came too early, or too late"
    # A kill costs the questions that were in flight, and every fault of a life a question or two.
    assert lives.moves <= lives.studies + 6 * (2 + 2 * 3)
