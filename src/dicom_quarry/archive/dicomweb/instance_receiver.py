"""Files of a retrieval over DICOMweb: from their bytes to the sink."""

from __future__ import annotations

from dicom_quarry.archive.base import RetrieveMonitor
from dicom_quarry.archive.dicomweb.multipart import MAX_LENGTH
from dicom_quarry.archive.reasons import Reasons
from dicom_quarry.errors import InstanceRefused, RemoteProtocolError
from dicom_quarry.model import InstanceInfo, Sink, Writer
from dicom_quarry.system.numbers import parse_number
from dicom_quarry.wire.file_meta import read_file_meta


class InstanceStream:
    """One file: reads the file meta information for the sink, then passes the dataset on as it comes.

    A file that is not DICOM, has another size than ``length``, or is refused by the sink fails alone: its
    other bytes are dropped. ``peer`` is its origin, ``size`` the number of bytes so far.
    """

    def __init__(self, sink: Sink, peer: str, length: str) -> None:
        self._sink = sink
        self._peer = peer
        self._length = parse_number(length, MAX_LENGTH)
        self.size = 0
        self._header_buffer = bytearray()
        self._writer: Writer | None = None
        self._error = ""

    def write(self, data: memoryview) -> None:
        """Process the next bytes of the file."""
        self.size += len(data)
        if self._error:
            return
        try:
            if self._writer is not None:
                self._writer.write(data)
            else:
                self._open_writer(data)
        except (InstanceRefused, RemoteProtocolError) as error:
            self._fail(error)

    def end(self) -> str:
        """Store the complete file; return the reason why it is not kept, empty if it is."""
        if not self._error and self._length is not None and self.size != self._length:
            self._error = f"a file has {self.size} bytes instead of the {self._length} that were announced"
        if not self._error and self._writer is None:
            self._error = "a file is not a DICOM file, or ends in its file meta information"
        if self._error or self._writer is None:
            self.abort()
            return self._error
        try:
            self._writer.commit()
        except InstanceRefused as error:
            self._fail(error)
        return self._error

    def abort(self) -> None:
        """Discard the incomplete file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _open_writer(self, data: memoryview) -> None:
        """Begin the file in the sink once its file meta information is complete: mostly at once."""
        if self._header_buffer:
            self._header_buffer += data
        start = memoryview(self._header_buffer) if self._header_buffer else data
        meta = read_file_meta(start)
        if meta is None:
            if not self._header_buffer:
                self._header_buffer += data
            return
        arrival = InstanceInfo(
            sop_class=meta.sop_class,
            sop_uid=meta.sop_uid,
            transfer_syntax=meta.transfer_syntax,
            peer=self._peer,
            head=bytes(start[: meta.size]),
        )
        self._writer = self._sink.begin(arrival)
        self._writer.write(start[meta.size :])

    def _fail(self, error: InstanceRefused | RemoteProtocolError) -> None:
        kind = "a file was refused" if isinstance(error, InstanceRefused) else "a file is not usable"
        self._error = f"{kind}: {error}"
        self.abort()


class InstanceReceiver:
    """Stores the files of one retrieval; ``peer`` is their origin.

    ``completed`` and ``failed`` count them; ``errors`` has the reasons of those that failed.
    """

    def __init__(self, sink: Sink, monitor: RetrieveMonitor, peer: str) -> None:
        self._sink = sink
        self._monitor = monitor
        self._peer = peer
        self._stream: InstanceStream | None = None
        self.completed = self.failed = 0
        self.errors = Reasons()

    def begin(self, length: str) -> None:
        """Begin a file; ``length`` is the announced number of bytes, or empty."""
        self._stream = InstanceStream(self._sink, self._peer, length)

    def write(self, data: memoryview) -> None:
        """Process the next bytes of the file."""
        if self._stream is not None:
            self._stream.write(data)

    def end(self) -> None:
        """End the file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._record_result(stream.end())

    def finish(self) -> None:
        """Discard a file that is not complete."""
        if self._stream is not None:
            self._stream.abort()
            self._stream = None

    def _record_result(self, error: str) -> None:
        if error:
            self.failed += 1
            self.errors.add(error)
        else:
            self.completed += 1
        self._monitor.on_activity(self.completed, None)
