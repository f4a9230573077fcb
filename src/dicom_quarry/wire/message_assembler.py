"""What the requestor of an association hears: whole messages, and instances that go on to a sink (C-GET)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.c_store import CStoreHandler, Sender
from dicom_quarry.wire.dimse import Command, CommandField, CommandReader
from dicom_quarry.wire.negotiation import AcceptedContext, is_storage
from dicom_quarry.wire.pdu import PDVFragment

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
