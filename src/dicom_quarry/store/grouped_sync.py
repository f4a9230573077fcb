"""Group commit: callers that come while a sync runs are served together by the next one."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")


class _Pass(Generic[T]):
    """One sync for all callers that wait for it; ``failures`` are those of single items."""

    def __init__(self) -> None:
        self.items: set[T] = set()
        self.is_over = False
        self.failures: Mapping[T, OSError] = {}
        #: The failure of all items; a pass that ends in an unforeseen way has failed.
        self.failure: OSError | None = OSError(errno.EIO, os.strerror(errno.EIO))


class GroupedSync(Generic[T]):
    """Syncs items, in one pass at a time.

    ``sync`` takes those of a pass, and returns the failures of single ones; it raises OSError if all failed.
    """

    def __init__(self, sync: Callable[[set[T]], Mapping[T, OSError]]) -> None:
        self._sync: Final = sync
        self._lock = threading.Lock()
        self._pass_lock = threading.Lock()
        self._next_pass = _Pass[T]()

    def sync(self, items: Iterable[T]) -> None:
        """Return once a pass has made these items durable that began after this call. Raises OSError."""
        own = set(items)
        if not own:
            return
        with self._lock:
            mine = self._next_pass
            mine.items |= own
        with self._pass_lock:
            if not mine.is_over:
                with self._lock:
                    self._next_pass = _Pass()
                self._run(mine)
        failed = own & mine.failures.keys()
        failure = mine.failures[next(iter(failed))] if failed else mine.failure
        if failure is not None:
            raise OSError(failure.errno, failure.strerror)

    @property
    def waiting(self) -> int:
        """The number of items that wait for the next pass."""
        return len(self._next_pass.items)

    def _run(self, mine: _Pass[T]) -> None:
        try:
            mine.failures = self._sync(mine.items)
            mine.failure = None
        except OSError as error:
            mine.failure = error
        finally:
            mine.is_over = True
