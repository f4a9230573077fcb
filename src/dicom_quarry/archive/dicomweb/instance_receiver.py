"""DICOM files on their way from HTTP answers into the sink: some become durable while the next one comes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future

from dicom_quarry.archive.base import RetrieveMonitor
from dicom_quarry.archive.dicomweb.instance_stream import InstanceStream
from dicom_quarry.model import Sink

#: Files of one retrieval that may wait for the disk at once: it makes several durable in the time of one.
_MAX_PENDING_COMMITS = 4

#: A file of fewer bytes is on the disk before another thread has been told of it.
_INLINE_COMMIT_BYTES = 1 << 16


class InstanceReceiver:
    """Takes the files of one retrieval. ``pool`` makes them durable; ``peer`` is where they come from.

    ``completed`` and ``failed`` count them, ``why`` says of those that failed what was wrong.
    """

    def __init__(self, sink: Sink, monitor: RetrieveMonitor, pool: Executor, peer: str) -> None:
        self._sink = sink
        self._monitor = monitor
        self._pool = pool
        self._peer = peer
        self._stream: InstanceStream | None = None
        self._pending_commits: deque[Future[str]] = deque()
        self.completed = self.failed = 0
        self.errors: list[str] = []

    def begin(self, length: str) -> None:
        """A file begins; ``length`` is what was announced of it, if anything."""
        self._stream = InstanceStream(self._sink, self._peer, length)

    def write(self, data: memoryview) -> None:
        """The next bytes of the file."""
        if self._stream is not None:
            self._stream.write(data)

    def end(self) -> None:
        """The file is over."""
        part, self._stream = self._stream, None
        if part is None:
            return
        if part.size < _INLINE_COMMIT_BYTES:
            self._record_result(part.end())
            return
        self._pending_commits.append(self._pool.submit(part.end))
        while len(self._pending_commits) > _MAX_PENDING_COMMITS:
            self._record_result(self._pending_commits.popleft().result())

    def finish(self) -> None:
        """Nothing more comes: forget a file that is not over, and wait until the others are durable."""
        if self._stream is not None:
            self._stream.abort()
            self._stream = None
        try:
            while self._pending_commits:
                self._record_result(self._pending_commits.popleft().result())
        finally:
            # One has failed as nothing should: the others are waited for, all the same.
            for future in self._pending_commits:
                future.exception()
            self._pending_commits.clear()

    def _record_result(self, error: str) -> None:
        if error:
            self.failed += 1
            self.errors.append(error)
        else:
            self.completed += 1
        self._monitor.on_activity(self.completed, None)
