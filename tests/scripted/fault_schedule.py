"""Schedule of a fault: its first occurrence and its number of occurrences."""

from __future__ import annotations

import threading
from typing import Self


class Turns:
    """``times`` is how often it strikes (None: for ever).

    A fault that counts calls :meth:`strikes` when its turn has come.
    """

    def __init__(self, *, times: int | None = None) -> None:
        self._left = times
        self._spared = 0
        self._lock = threading.Lock()

    def after(self, turns: int) -> Self:
        """Let so many turns pass before the first strike."""
        self._spared = turns
        return self

    def strikes(self) -> bool:
        """Use up one of the times; False when there are none left, or it is too early."""
        with self._lock:
            if self._spared:
                self._spared -= 1
                return False
            if self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            return True
