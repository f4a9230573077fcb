"""DICOM files on their way from HTTP answers into the sink: some become durable while the next one comes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future

from dicom_quarry.archive.base import Watch
from dicom_quarry.archive.dicomweb.instance_stream import Part
from dicom_quarry.model import Sink

#: Files of one retrieval that may wait for the disk at once: it makes several durable in the time of one.
_AHEAD = 4

#: A file of fewer bytes is on the disk before another thread has been told of it.
_SMALL = 1 << 16


class Intake:
    """Takes the files of one retrieval. ``pool`` makes them durable; ``peer`` is where they come from.

    ``completed`` and ``failed`` count them, ``why`` says of those that failed what was wrong.
    """

    def __init__(self, sink: Sink, watch: Watch, pool: Executor, peer: str) -> None:
        self._sink = sink
        self._watch = watch
        self._pool = pool
        self._peer = peer
        self._part: Part | None = None
        self._ending: deque[Future[str]] = deque()
        self.completed = self.failed = 0
        self.why: list[str] = []

    def begin(self, length: str) -> None:
        """A file begins; ``length`` is what was announced of it, if anything."""
        self._part = Part(self._sink, self._peer, length)

    def write(self, data: memoryview) -> None:
        """The next bytes of the file."""
        if self._part is not None:
            self._part.write(data)

    def end(self) -> None:
        """The file is over."""
        part, self._part = self._part, None
        if part is None:
            return
        if part.size < _SMALL:
            self._count(part.end())
            return
        self._ending.append(self._pool.submit(part.end))
        while len(self._ending) > _AHEAD:
            self._count(self._ending.popleft().result())

    def settle(self) -> None:
        """Nothing more comes: forget a file that is not over, and wait until the others are durable."""
        if self._part is not None:
            self._part.abort()
            self._part = None
        try:
            while self._ending:
                self._count(self._ending.popleft().result())
        finally:
            # One has failed as nothing should: the others are waited for, all the same.
            for future in self._ending:
                future.exception()
            self._ending.clear()

    def _count(self, why: str) -> None:
        if why:
            self.failed += 1
            self.why.append(why)
        else:
            self.completed += 1
        self._watch.sign_of_life(self.completed, None)
