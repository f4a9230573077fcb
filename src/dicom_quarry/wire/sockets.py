"""The one file with I/O: sockets, and the requestor of associations."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_quarry.model import AE
from dicom_quarry.wire.dimse import Command

DEFAULT_MAX_PDU = 131072


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: a command set and the dataset that it announced."""

    context_id: int
    command: Command
    dataset: bytes


class Requestor:
    """An association that this side asked for."""

    accepted: Mapping[str, tuple[int, str]]

    @classmethod
    def connect(
        cls,
        peer: AE,
        *,
        calling: str,
        contexts: Sequence[tuple[str, Sequence[str]]],
        connect_timeout: float = 10.0,
        answer_timeout: float = 30.0,
        max_pdu: int = DEFAULT_MAX_PDU,
        tls: ssl.SSLContext | None = None,
        roles: Mapping[str, tuple[bool, bool]] | None = None,
    ) -> Requestor:
        """Connect and negotiate; raises Unreachable or Rejected."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether the association stands."""
        raise NotImplementedError

    def send(self, command: Command, dataset: bytes = b"", *, context_id: int) -> None:
        """Send one message; raises Lost."""
        raise NotImplementedError

    def receive(self, timeout: float) -> Message | None:
        """The next whole message, or None when none came within ``timeout`` seconds; raises Lost."""
        raise NotImplementedError

    def release(self, timeout: float = 5.0) -> None:
        """End the association in order; never raises."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the association at once; never raises, and may be called from another thread."""
        raise NotImplementedError
