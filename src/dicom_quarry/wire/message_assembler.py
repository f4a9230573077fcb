"""What the requestor of an association hears: whole messages, and instances that go on to a sink (C-GET)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_quarry.errors import RemoteProtocolError
from dicom_quarry.model import Sink
from dicom_quarry.wire.c_store import Intake, Sender
from dicom_quarry.wire.dimse import Command, CommandField, MessageReader
from dicom_quarry.wire.negotiation import Accepted, is_storage
from dicom_quarry.wire.pdu import PDVFragment

#: Identifiers and responses are gathered in memory; instances never are.
MAX_GATHERED = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: a command set and the dataset that it announced."""

    context_id: int
    command: Command
    dataset: bytes


class Inbox:
    """Puts messages together; ``messages`` are those that are whole. ``contexts`` are those agreed, by ID."""

    def __init__(self, contexts: Mapping[int, Accepted]) -> None:
        self.messages: list[Message] = []
        self._contexts = contexts
        self._intake: Intake | None = None
        self._reader = MessageReader(contexts)
        self._command: tuple[int, Command] | None = None  # whose dataset is still to come
        self._dataset = bytearray()

    def store_into(self, sink: Sink, sender: Sender) -> None:
        """From now on C-STORE requests are answered, and do not become messages."""
        contexts = self._contexts.items()
        storage = {number: one.transfer_syntax for number, one in contexts if is_storage(one.abstract_syntax)}
        self._intake = Intake(sink, storage, sender)

    @property
    def storing(self) -> bool:
        """Whether an instance is coming."""
        return self._intake is not None and self._intake.under_way

    def take(self, fragment: PDVFragment) -> Command | None:
        """Take a fragment; a response to send on its presentation context, if it ended an instance.

        Raises RemoteProtocolError.
        """
        taken = self._reader.take(fragment)
        if isinstance(taken, Command):
            if self._intake and taken.field is CommandField.C_STORE_RQ:
                return self._intake.begin(fragment.context_id, taken)
            self._command = (fragment.context_id, taken)
        elif taken is not None and self._intake and self._intake.under_way:
            return self._intake.take(taken)
        elif taken is not None:
            self._gather(taken)
        if self._command and not self._reader.within_message:
            self.messages.append(Message(*self._command, bytes(self._dataset)))
            self._command = None
            self._dataset.clear()
        return None

    def _gather(self, fragment: PDVFragment) -> None:
        self._dataset += fragment.data
        if len(self._dataset) > MAX_GATHERED:
            raise RemoteProtocolError(f"a dataset of more than {MAX_GATHERED} bytes in a response")

    def abort(self) -> None:
        """The association has ended: what was not whole is forgotten."""
        if self._intake:
            self._intake.abort()
