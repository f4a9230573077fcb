"""Fixtures that every test may use."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.peers.fixtures import corpus, start

#: No test asserts a time: a busy machine is no failure.
settings.register_profile("quarry", deadline=None)
settings.load_profile("quarry")

__all__ = ["corpus", "start"]


@pytest.fixture(autouse=True)
def _jobs_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of this user's jobs is neither read nor written by a test; every test has its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))
