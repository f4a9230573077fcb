"""A command that stops for ever at a place in the code, where a test kills it; for the command server."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The place, ``before MODULE:NAME`` or ``after MODULE:NAME``, and the file that is made when it is reached.
PLACE, REACHED = "QUARRY_TEST_STOP", "QUARRY_TEST_REACHED"


def prepare() -> None:
    """Change the function of the place. After a call that returned nothing it goes on."""
    when, _, place = os.environ[PLACE].partition(" ")
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original: Callable[..., Any] = getattr(owner, name)
    reached = Path(os.environ[REACHED])

    def stop() -> None:
        reached.touch()
        time.sleep(3600)

    def changed(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            stop()
        result = original(*args, **kwargs)
        if result is None or result:
            stop()
        return result

    setattr(owner, name, changed)
