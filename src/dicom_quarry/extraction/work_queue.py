"""Work on its way between threads: bounded, and at its end nobody waits for more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds between two looks at whether to go on waiting.
_LOOK = 0.5


class Conveyor(Generic[T]):
    """Holds at most ``room`` items. ``check`` is called by who waits, now and then, and may raise."""

    def __init__(self, room: int, check: Callable[[], None]) -> None:
        self._room = room
        self._check = check
        self._items: deque[T] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)

    def put(self, item: T) -> None:
        """Add an item, once there is room."""
        with self._lock:
            while len(self._items) >= self._room:
                self._emptied.wait(_LOOK)
                self._check()
            self._items.append(item)
            self._filled.notify()

    def take(self, idle: Callable[[], None] = lambda: None) -> T | None:
        """The next item, None when none is left and no more will come.

        ``idle`` is called before it is waited for one.
        """
        while True:
            self._check()
            with self._lock:
                if self._items:
                    self._emptied.notify()
                    return self._items.popleft()
                if self._closed:
                    return None
            idle()
            with self._lock:
                if not self._items and not self._closed:
                    self._filled.wait(_LOOK)

    def close(self) -> None:
        """No more will come."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
