"""The tree of Quarry's errors, by cause and by remedy.

::

    QuarryError
    ├── InputError                  the user's table, option or file; exit code 2
    │   └── ConfigError             quarry.toml, a policy file, a flag
    ├── StartError                  the job could not begin: port, folder, lock, archive; exit code 3
    │   └── PortInUse               another process listens on our port
    ├── ReceiverEnded               our own receiver ended by itself; exit code 4
    ├── ArchiveError                the archive, or the connection to it
    │   ├── Unreachable             no connection, or no answer to the association request: try again later
    │   ├── Rejected                the association was refused; ``permanent`` if trying again cannot help
    │   │   └── ServiceNotOffered   the association was accepted, but not its service
    │   ├── ConnectionLost          aborted, cut or silent during an operation: try again
    │   ├── QueryFailed             a query ended with a failure ``status``
    │   └── OperatorActionRequired  a person has to act, on our side or at the archive, before the next try
    ├── ProtocolError               bytes that are not DICOM
    │   ├── RemoteProtocolError     the peer violated PS3.8 or PS3.7: the association is aborted
    │   └── LocalProtocolError      we tried something illegal: a defect of Quarry
    ├── InstanceRefused             an instance that is not stored; ``status`` is sent to the sender
    │   └── OutOfSpace              the disk is full for now (0xA700, PS3.4 B.2.3)
    └── LedgerError                 the job's ledger cannot be used: locked, damaged, of a newer version
        └── LedgerFull              the disk of the job's record is full; exit code 4
"""

from __future__ import annotations


class QuarryError(Exception):
    """Base class of the errors that Quarry raises on purpose; ``str()`` is a sentence for the user."""


class InputError(QuarryError):
    """The user's input cannot be used; the message names the problem, its place and the remedy."""


class ConfigError(InputError):
    """A setting is wrong: in a flag, in quarry.toml or in a policy file."""


class StartError(QuarryError):
    """The job cannot begin; no request was sent to the archive."""


class PortInUse(StartError):
    """Another process listens on the port of our receiver."""


class ReceiverEnded(QuarryError):
    """Our own receiver accepts no more connections, though nothing stopped it."""


class ArchiveError(QuarryError):
    """The archive, or the connection to it, failed."""


class Unreachable(ArchiveError):
    """No connection could be made, or the association request was not answered.

    ``is_connected``: there was a connection, but no answer to the association request.
    """

    def __init__(self, message: str, *, is_connected: bool = False) -> None:
        super().__init__(message)
        self.is_connected = is_connected


class Rejected(ArchiveError):
    """The archive refused the association (PS3.8 9.3.4), or over HTTP refuses requests for now.

    ``retry_after`` is the pause that the archive requested, in seconds; 0 if it requested none.
    ``is_explained``: the archive gave a reason.
    """

    def __init__(
        self, message: str, *, permanent: bool, retry_after: float = 0.0, is_explained: bool = True
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.is_explained = is_explained


class ServiceNotOffered(Rejected):
    """The archive accepted the association, but not the service that it was opened for."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class ConnectionLost(ArchiveError):
    """The association ended, or became silent, before the operation was finished."""


class QueryFailed(ArchiveError):
    """A C-FIND failed with ``status`` (PS3.4 C.4.1.1.4); or, with ``is_http``, a QIDO-RS (PS3.18 8.5)."""

    def __init__(self, message: str, *, status: int, is_http: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_http = is_http


def redact(error: ArchiveError) -> str:
    """Return an archive's failure for logs and redirected output, without text that may name a patient."""
    if isinstance(error, QueryFailed):
        code = f"HTTP {error.status}" if error.is_http else f"status {error.status:04X}H"
        return f"the archive answered a query with a failure ({code})"
    return error.redacted if isinstance(error, OperatorActionRequired) else str(error)


class OperatorActionRequired(ArchiveError):
    """Further requests cannot succeed before a person has acted; the message states what to do.

    ``redacted`` is the message without text from the archive; by default the message itself. ``archive`` is
    the name of the archive whose query ended with it, where that is known.
    """

    def __init__(self, message: str, *, redacted: str = "") -> None:
        super().__init__(message)
        self.redacted = redacted or message
        self.archive = ""


class ProtocolError(QuarryError):
    """Bytes, or an order of messages, that DICOM does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer violated the protocol: the association must be aborted."""


class LocalProtocolError(ProtocolError):
    """Quarry itself tried something that the protocol does not allow in this state."""


class InstanceRefused(QuarryError):
    """An instance is not stored; ``status`` is the C-STORE status for its sender (PS3.4 B.2.3)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OutOfSpace(InstanceRefused):
    """The disk has no space for the instance now; the sender may try again (0xA700)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=0xA700)


class RoomUsedUp(QuarryError):
    """The files of a job take the room that it may take: no further study is begun."""


class LedgerError(QuarryError):
    """The job's ledger cannot be opened or does not fit this version of Quarry."""


class ClaimLost(LedgerError):
    """A row or a study is another worker's now; what this worker has found out about it is not recorded."""


class LedgerFull(LedgerError):
    """The disk of the job's record is full: what was recorded stays, and the job can go on later."""
