"""Instances on their way from C-STORE requests to the sink, and the status that their sender gets.

For the Storage SCP of an association, which in C-GET is the one that asked for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dicom_quarry.errors import InstanceRefused, RemoteProtocolError
from dicom_quarry.model import InstanceInfo, Sink, Writer
from dicom_quarry.wire import dimse
from dicom_quarry.wire.dimse import Command, CommandField, CommandReader
from dicom_quarry.wire.negotiation import AcceptedContext, is_storage
from dicom_quarry.wire.pdu import PDVFragment

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROCESSING_FAILURE = 0x0110  # PS3.7 9.1.1.1.9
_CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3


class IncomingInstance:
    """Passes the pieces of a dataset to a writer. Success is answered only after its commit has returned.

    Once the sink has refused, or failed, the rest is read and dropped: the sender is in the middle of a
    message and can only be told at its end.
    """

    def __init__(self, command: Command, sink: Sink, arrival: InstanceInfo) -> None:
        self.size = 0
        self.status = dimse.SUCCESS
        self._command = command
        self.comment = ""
        self._writer: Writer | None = None
        if arrival.sop_uid and arrival.sop_class and command.has_dataset:
            self._writer = self._call_sink(sink.begin, arrival)
        else:
            self._fail(_CANNOT_UNDERSTAND, "no SOP Class UID, SOP Instance UID or data set")

    def write(self, data: memoryview) -> None:
        """Hand on the next bytes."""
        self.size += len(data)
        if self._writer is not None:
            self._call_sink(self._writer.write, data)

    def finish(self) -> Command:
        """Commit, and give the response."""
        if self._writer is not None:
            self._call_sink(self._writer.commit)
            self._writer = None
        return dimse.response(self._command, self.status, self.comment)

    def abort(self) -> None:
        """Forget the instance: the rest of it will not come."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _call_sink(self, action: Callable[..., T], *arguments: object) -> T | None:
        try:
            return action(*arguments)
        except InstanceRefused as refusal:
            self._fail(refusal.status, str(refusal))
        except Exception as error:  # noqa: BLE001 - whatever a sink does, its sender gets an honest status
            # The message of the exception may name a patient's file: its kind and place must do.
            logger.error("an instance could not be stored: %s", _describe_error(error))
            self._fail(_PROCESSING_FAILURE, "processing failure")
        return None

    def _fail(self, status: int, comment: str) -> None:
        self.status = status or _PROCESSING_FAILURE  # a refusal is never a success
        self.comment = comment
        self.abort()


@dataclass(frozen=True, slots=True)
class Sender:
    """Who stores, and under which of our titles; ``address`` is where it is."""

    calling_ae: str
    called_ae: str
    address: str


class CStoreHandler:
    """Takes the C-STORE requests of one association, one after the other.

    ``contexts`` has the transfer syntax of every presentation context for storage. ``ended`` is told of each
    instance before its sender is.
    """

    def __init__(
        self,
        sink: Sink,
        contexts: Mapping[int, str],
        sender: Sender,
        on_finished: Callable[[IncomingInstance], None] = lambda _: None,
    ) -> None:
        self._sink = sink
        self._contexts = contexts
        self._sender = sender
        self._on_finished = on_finished
        self._incoming: IncomingInstance | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether an instance is coming."""
        return self._incoming is not None

    def begin(self, context_id: int, command: Command) -> Command | None:
        """Take a C-STORE request; its response if no dataset follows. Raises RemoteProtocolError."""
        syntax = self._contexts.get(context_id)
        if syntax is None:
            raise RemoteProtocolError(
                f"C-STORE on presentation context {context_id}, which is not for storage"
            )
        arrival = InstanceInfo(
            sop_class=command.affected_sop_class,
            sop_uid=command.affected_sop_instance,
            transfer_syntax=syntax,
            calling_ae=self._sender.calling_ae,
            called_ae=self._sender.called_ae,
            peer=self._sender.address,
        )
        self._incoming = IncomingInstance(command, self._sink, arrival)
        return None if command.has_dataset else self._finish(self._incoming)

    def feed(self, fragment: PDVFragment) -> Command | None:
        """Take a piece of the dataset; the response once it was the last, and the instance is durable."""
        incoming = self._incoming
        if incoming is None:
            return None
        incoming.write(fragment.data)
        return self._finish(incoming) if fragment.is_last else None

    def abort(self) -> None:
        """The association has ended: forget the instance that was coming."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()

    def _finish(self, incoming: IncomingInstance) -> Command:
        response = incoming.finish()
        self._incoming = None
        self._on_finished(incoming)
        return response


def _describe_error(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""
    return type(error).__name__ + place


#: Identifiers and responses are gathered in memory; instances never are.
MAX_DATASET_SIZE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DimseMessage:
    """A whole message: a command set and the dataset that it announced."""

    context_id: int
    command: Command
    dataset: bytes


class MessageAssembler:
    """Puts messages together; ``messages`` are those that are whole. ``contexts`` are those agreed, by ID."""

    def __init__(self, contexts: Mapping[int, AcceptedContext]) -> None:
        self.messages: list[DimseMessage] = []
        self._contexts = contexts
        self._store_handler: CStoreHandler | None = None
        self._command_reader = CommandReader(contexts)
        self._command: tuple[int, Command] | None = None  # whose dataset is still to come
        self._dataset = bytearray()

    def accept_c_store(self, sink: Sink, sender: Sender) -> None:
        """From now on C-STORE requests are answered, and do not become messages."""
        contexts = self._contexts.items()
        storage = {number: one.transfer_syntax for number, one in contexts if is_storage(one.abstract_syntax)}
        self._store_handler = CStoreHandler(sink, storage, sender)

    @property
    def is_receiving(self) -> bool:
        """Whether an instance is coming."""
        return self._store_handler is not None and self._store_handler.is_receiving

    def feed(self, fragment: PDVFragment) -> Command | None:
        """Take a fragment; a response to send on its presentation context, if it ended an instance.

        Raises RemoteProtocolError.
        """
        unit = self._command_reader.feed(fragment)
        if isinstance(unit, Command):
            if self._store_handler and unit.field is CommandField.C_STORE_RQ:
                return self._store_handler.begin(fragment.context_id, unit)
            self._command = (fragment.context_id, unit)
        elif unit is not None and self._store_handler and self._store_handler.is_receiving:
            return self._store_handler.feed(unit)
        elif unit is not None:
            self._append_dataset(unit)
        if self._command and not self._command_reader.is_within_message:
            self.messages.append(DimseMessage(*self._command, bytes(self._dataset)))
            self._command = None
            self._dataset.clear()
        return None

    def _append_dataset(self, fragment: PDVFragment) -> None:
        self._dataset += fragment.data
        if len(self._dataset) > MAX_DATASET_SIZE:
            raise RemoteProtocolError(f"a dataset of more than {MAX_DATASET_SIZE} bytes in a response")

    def abort(self) -> None:
        """The association has ended: what was not whole is forgotten."""
        if self._store_handler:
            self._store_handler.abort()
