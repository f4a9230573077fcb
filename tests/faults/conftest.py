"""Short delays for every job of these tests, and no limit of disk space."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.scenario_runner")

from tests.faults.scenario_runner import DEADLINE, Stage  # noqa: E402
from tests.faults.short_delays import hasten  # noqa: E402 (what it imports is to explain its assertions)


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch.setattr)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A folder and a port; no quarry.toml of the developer's gets in the way."""
    monkeypatch.chdir(tmp_path)
    return Stage(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A job ends by itself: a deadline far above what any takes is the only time in these tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(DEADLINE))
