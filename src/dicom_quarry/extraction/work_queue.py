"""Work on its way between threads: bounded, and at its end nobody waits for more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds between two looks at whether to go on waiting.
_POLL_INTERVAL = 0.5


class ClosableQueue(Generic[T]):
    """Holds at most ``room`` items. ``check`` is called by who waits, now and then, and may raise."""

    def __init__(self, capacity: int, check: Callable[[], None]) -> None:
        self._capacity = capacity
        self._check = check
        self._items: deque[T] = deque()
        self._closed = False
        self._lock = threading.Lock()
        self._not_empty = threading.Condition(self._lock)
        self._not_full = threading.Condition(self._lock)

    def put(self, item: T) -> None:
        """Add an item, once there is room."""
        with self._lock:
            while len(self._items) >= self._capacity:
                self._not_full.wait(_POLL_INTERVAL)
                self._check()
            self._items.append(item)
            self._not_empty.notify()

    def take(self, on_idle: Callable[[], None] = lambda: None) -> T | None:
        """The next item, None when none is left and no more will come.

        ``idle`` is called before it is waited for one.
        """
        while True:
            self._check()
            with self._lock:
                if self._items:
                    self._not_full.notify()
                    return self._items.popleft()
                if self._closed:
                    return None
            on_idle()
            with self._lock:
                if not self._items and not self._closed:
                    self._not_empty.wait(_POLL_INTERVAL)

    def close(self) -> None:
        """No more will come."""
        with self._lock:
            self._closed = True
            self._not_empty.notify_all()
