"""Storage SCP side of an association, and the assembler of whole messages (PS3.4 annex B, PS3.7 9.1.1).

:class:`CStoreHandler` streams the dataset of each C-STORE request into a sink and gives the status for its
sender. The receiver uses it for associations that it accepts. :class:`MessageAssembler` collects the
responses to this side's requests, and uses a handler for the sub-operations of a C-GET (PS3.4 C.4.3), where
the requestor of the association is the Storage SCP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dicom_quarry.errors import InstanceRefused, RemoteProtocolError
from dicom_quarry.model import InstanceInfo, Sink, Writer
from dicom_quarry.system.error_trace import describe_place, format_trace
from dicom_quarry.wire import dimse
from dicom_quarry.wire.dimse import Command, CommandField, CommandReader
from dicom_quarry.wire.negotiation import AcceptedContext, is_storage
from dicom_quarry.wire.pdu import PDVFragment

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PROCESSING_FAILURE = 0x0110  # PS3.7 9.1.1.1.9
_CANNOT_UNDERSTAND = 0xC000  # PS3.4 B.2.3


class IncomingInstance:
    """One instance that a C-STORE request announced: its dataset goes to a writer of the sink.

    The response reports success only after the writer's commit has returned. If the sink refuses or fails,
    the rest of the dataset is read and dropped: a response may only follow the whole message. ``size`` is in
    bytes; ``status`` and ``comment`` are those of the response.
    """

    def __init__(self, command: Command, sink: Sink, info: InstanceInfo) -> None:
        self.size = 0
        self.status = dimse.SUCCESS
        self.comment = ""
        self._command = command
        self._writer: Writer | None = None
        if info.sop_uid and info.sop_class and command.has_dataset:
            self._writer = self._call_sink(sink.begin, info)
        else:
            self._fail(_CANNOT_UNDERSTAND, "no SOP Class UID, SOP Instance UID or data set")

    def write(self, *pieces: memoryview) -> None:
        """Write the next bytes of the dataset."""
        self.size += sum(map(len, pieces))
        if self._writer is not None:
            self._call_sink(self._writer.write, *pieces)

    def finish(self) -> Command:
        """Commit the instance and return the response (PS3.7 9.3.1.2)."""
        if self._writer is not None:
            self._call_sink(self._writer.commit)
            self._writer = None
        return dimse.response(self._command, self.status, self.comment)

    def abort(self) -> None:
        """Discard the instance: the rest of it will not come."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    def _call_sink(self, action: Callable[..., T], *arguments: object) -> T | None:
        try:
            return action(*arguments)
        except InstanceRefused as refusal:
            self._fail(refusal.status, str(refusal))
        except Exception as error:  # noqa: BLE001 - any failure of a sink becomes a failure status
            # The message of the exception may contain the name of a patient's file: log its type and place.
            trace = "" if isinstance(error, OSError) else f"\n{format_trace(error)}"
            logger.error("an instance could not be stored: %s%s", describe_place(error), trace)
            self._fail(_PROCESSING_FAILURE, "processing failure")
        return None

    def _fail(self, status: int, comment: str) -> None:
        self.status = status or _PROCESSING_FAILURE  # a refusal is never a success
        self.comment = comment
        self.abort()


@dataclass(frozen=True, slots=True)
class Sender:
    """The Storage SCU of an association: both AE titles, and the network address of the SCU."""

    calling_ae: str
    called_ae: str
    address: str


class CStoreHandler:
    """Handler of the C-STORE requests of one association, one after the other.

    ``contexts`` has the transfer syntax of every storage presentation context, by context ID. ``on_finished``
    is called for each instance before its response is sent.
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
        """True between a C-STORE request and its response."""
        return self._incoming is not None

    def begin(self, context_id: int, command: Command) -> Command | None:
        """Handle a C-STORE request; return the response if no dataset follows.

        Raises RemoteProtocolError.
        """
        self.abort()  # an instance before this one whose dataset was announced and did not come
        syntax = self._contexts.get(context_id)
        if syntax is None:
            raise RemoteProtocolError(
                f"C-STORE on presentation context {context_id}, which is not for storage"
            )
        info = InstanceInfo(
            sop_class=command.affected_sop_class,
            sop_uid=command.affected_sop_instance,
            transfer_syntax=syntax,
            calling_ae=self._sender.calling_ae,
            called_ae=self._sender.called_ae,
            peer=self._sender.address,
            move_id=self._own_move_id(command),
        )
        self._incoming = IncomingInstance(command, self._sink, info)
        return None if command.has_dataset else self._finish(self._incoming)

    def _own_move_id(self, command: Command) -> int | None:
        """Return the Move Originator Message ID unless another AE title requested the C-MOVE.

        The receiver is called by the title under which Quarry requests. Some archives give their own instead.
        """
        own = (self._sender.called_ae, self._sender.calling_ae)
        return command.move_originator_message_id if command.move_originator in own else None

    def feed(self, fragment: PDVFragment) -> Command | None:
        """Handle a piece of the dataset; after the last one, commit the instance and return the response."""
        incoming = self._incoming
        if incoming is None:
            return None
        incoming.write(fragment.data, *fragment.more)
        return self._finish(incoming) if fragment.is_last else None

    def abort(self) -> None:
        """Discard the unfinished instance, if there is one: the association has ended."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()

    def _finish(self, incoming: IncomingInstance) -> Command:
        response = incoming.finish()
        self._incoming = None
        self._on_finished(incoming)
        return response


#: Bytes. Identifiers and responses are kept in memory; instances never are.
MAX_DATASET_SIZE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DimseMessage:
    """A whole message: a command set and its dataset (PS3.7 6.3)."""

    context_id: int
    command: Command
    dataset: bytes


class MessageAssembler:
    """Assembler of messages from fragments.

    ``contexts`` are the accepted presentation contexts by ID. ``messages`` are those that are complete.
    """

    def __init__(self, contexts: Mapping[int, AcceptedContext]) -> None:
        self.messages: list[DimseMessage] = []
        self._contexts = contexts
        self._store_handler: CStoreHandler | None = None
        self._command_reader = CommandReader(contexts)
        self._command: tuple[int, Command] | None = None  # the command that waits for its dataset
        self._dataset = bytearray()

    def accept_c_store(self, sink: Sink, sender: Sender) -> None:
        """Store the instances of C-STORE requests in a sink from now on; they do not become messages."""
        contexts = self._contexts.items()
        storage = {number: one.transfer_syntax for number, one in contexts if is_storage(one.abstract_syntax)}
        self._store_handler = CStoreHandler(sink, storage, sender)

    @property
    def is_receiving(self) -> bool:
        """True between a C-STORE request and its response."""
        return self._store_handler is not None and self._store_handler.is_receiving

    def feed(self, fragment: PDVFragment) -> Command | None:
        """Handle a fragment; if it ended an instance, return the response for its presentation context.

        Raises RemoteProtocolError.
        """
        unit = self._command_reader.feed(fragment)
        if fragment.is_command:
            self._end_unfinished()
        if isinstance(unit, Command):
            if self._store_handler and unit.field is CommandField.C_STORE_RQ:
                return self._store_handler.begin(fragment.context_id, unit)
            self._command = (fragment.context_id, unit)
        elif unit is not None and self._store_handler and self._store_handler.is_receiving:
            return self._store_handler.feed(unit)
        elif unit is not None:
            self._append_dataset(unit)
        if self._command and not self._command_reader.is_within_message:
            self._complete()
        return None

    @property
    def awaits_failed_list(self) -> bool:
        """True while a final response waits for its Failed SOP Instance UID List: a hint, no more."""
        return self._command is not None and self._command[1].field in (
            CommandField.C_GET_RSP,
            CommandField.C_MOVE_RSP,
        )

    def complete_without_list(self) -> bool:
        """Complete the final response that waits for its list; return False if there is none, or it comes."""
        if not self.awaits_failed_list or not self._command_reader.skip_dataset():
            return False
        self._complete()
        return True

    def _end_unfinished(self) -> None:
        """End the message before the command that has come: its dataset was announced and does not come."""
        if self._command:
            self._complete()
        self.abort()

    def _complete(self) -> None:
        if self._command:
            self.messages.append(DimseMessage(*self._command, bytes(self._dataset)))
        self._command = None
        self._dataset.clear()

    def _append_dataset(self, fragment: PDVFragment) -> None:
        for piece in (fragment.data, *fragment.more):
            self._dataset += piece
        if len(self._dataset) > MAX_DATASET_SIZE:
            raise RemoteProtocolError(f"a dataset of more than {MAX_DATASET_SIZE} bytes in a response")

    def abort(self) -> None:
        """Discard the unfinished instance, if there is one: the association has ended."""
        if self._store_handler:
            self._store_handler.abort()
