"""One DICOM file on its way from the body of an HTTP answer to the sink."""

from __future__ import annotations

from dicom_quarry.errors import InstanceRefused, RemoteProtocolError
from dicom_quarry.model import InstanceInfo, Sink, Writer
from dicom_quarry.wire.file_meta import read_file_meta


class InstanceStream:
    """Reads the file meta information for the sink, then hands the dataset on as it comes.

    What is no DICOM file, what is not as long as its ``length`` said, and what the sink refuses costs this
    part alone: the rest of its bytes is dropped. ``peer`` is where it comes from, ``size`` the bytes so far.
    """

    def __init__(self, sink: Sink, peer: str, length: str) -> None:
        self._sink = sink
        self._peer = peer
        self._length = int(length) if length.isascii() and length.isdigit() else None
        self.size = 0
        self._header_buffer = bytearray()
        self._writer: Writer | None = None
        self._error = ""

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the file."""
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
        """The file is over: make it durable; why it is not kept, or nothing if it is."""
        if not self._error and self._length is not None and self.size != self._length:
            self._error = f"a file of {self.size} bytes came, where {self._length} were announced"
        if not self._error and self._writer is None:
            self._error = "a file came that ends in its file meta information, or is no DICOM file"
        if self._error or self._writer is None:
            self.abort()
            return self._error
        try:
            self._writer.commit()
        except InstanceRefused as error:
            self._fail(error)
        return self._error

    def abort(self) -> None:
        """Forget the file: the rest of it will not come."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _open_writer(self, data: memoryview) -> None:
        """Most of the time the first bytes have all of the file meta information."""
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
        kind = (
            "a file was not taken" if isinstance(error, InstanceRefused) else "a file came that is not usable"
        )
        self._error = f"{kind}: {error}"
        self.abort()
