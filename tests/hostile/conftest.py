"""Users, and folders that they can reach: pytest's own are closed to all but root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.users import CAN_SWITCH, User, quarry_command


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter."""
    path = Path(tempfile.mkdtemp(prefix="quarry-users-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _user(place: Path, name: str, uid: int) -> User:
    if not CAN_SWITCH:
        pytest.skip("only root, with setpriv, can act as other users")
    home = place / name
    home.mkdir(mode=0o755)
    os.chown(home, uid, uid)
    if not quarry_command(uid):
        pytest.skip("another user cannot read this Python, or this checkout")
    return User(uid, home)


@pytest.fixture
def alice(place: Path) -> User:
    """The user who runs Quarry."""
    return _user(place, "alice", 64001)


@pytest.fixture
def mallory(place: Path) -> User:
    """The user who plants things."""
    return _user(place, "mallory", 64002)
