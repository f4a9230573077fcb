"""An instance that is larger than the memory that Quarry is allowed."""

from __future__ import annotations

import pytest

from tests.e2e.command import files
from tests.e2e.demo_process import Content
from tests.e2e.test_memory import LIMIT, extracted
from tests.faults.documented_tests import shows
from tests.faults.scenario_runner import Stage


@pytest.mark.timeout(120)
@shows(
    23,
    "an instance is larger than the memory that Quarry may use (of 2 GB in tests/e2e/test_memory.py)",
    "streams it to the disk: memory stays flat",
)
def test_an_instance_larger_than_memory(stage: Stage) -> None:
    peak, out = extracted(stage.folder, Content(studies=1, images=1, frames=25))
    [name] = files(out)
    assert (out / name).stat().st_size > LIMIT > peak
