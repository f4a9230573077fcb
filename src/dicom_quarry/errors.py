"""What can go wrong, by whose fault it is and whether another try can help.

::

    QuarryError
    ├── InputError              the user's table, option or file; exit code 2
    │   └── ConfigError         quarry.toml, a policy file, a flag
    ├── StartError              the job could not begin: port, folder, lock, archive; exit code 3
    │   └── PortInUse           another process listens there
    ├── ArchiveError            the archive or the road to it
    │   ├── Unreachable         no connection, or no answer to the association request: try again later
    │   ├── Rejected            the association was refused; ``permanent`` says whether to try again
    │   ├── Lost                aborted, cut or silent in the middle: try again
    │   ├── QueryFailed         a query ended in a status other than success: ``status`` says which
    │   └── Unusable            a person has to act, here or at the archive, before it is asked again
    ├── ProtocolError           bytes that are not DICOM
    │   ├── RemoteProtocolError the peer broke PS3.8 or PS3.7: the association is aborted
    │   └── LocalProtocolError  we tried something illegal: a defect of Quarry
    ├── Refused                 an instance that is not taken; ``status`` is what the sender is told
    │   └── OutOfSpace          no room, for now (0xA700, PS3.4 B.2.3)
    └── LedgerError             the job's record cannot be used: locked, damaged, of a newer version
"""

from __future__ import annotations


class QuarryError(Exception):
    """Base of everything that Quarry raises on purpose; ``str()`` is a sentence for the user."""


class InputError(QuarryError):
    """The user's input cannot be used; the message says what, where and what to do."""


class ConfigError(InputError):
    """A setting is wrong: in a flag, in quarry.toml or in a policy file."""


class StartError(QuarryError):
    """The job cannot begin; nothing was asked of the archive."""


class PortInUse(StartError):
    """Another process listens on the port that our receiver is to have."""


class ArchiveError(QuarryError):
    """The archive, or the road to it, failed."""


class Unreachable(ArchiveError):
    """No connection could be made, or nobody answered the association request."""


class Rejected(ArchiveError):
    """The archive refused the association (PS3.8 9.3.4), or over HTTP any request for now.

    ``retry_after``: for so many seconds it wants to be left alone, as far as it said so.
    """

    def __init__(self, message: str, *, permanent: bool, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class ConnectionLost(ArchiveError):
    """The association ended, or fell silent, before the operation did."""


class QueryFailed(ArchiveError):
    """A C-FIND ended in a failure (PS3.4 C.4.1.1.4); or, with ``http``, a QIDO-RS (PS3.18 8.5)."""

    def __init__(self, message: str, *, status: int, is_http: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_http = is_http


def redact(error: ArchiveError) -> str:
    """An archive's failure for logs and redirected output, without its own words: they may name a patient."""
    if isinstance(error, QueryFailed):
        code = f"HTTP {error.status}" if error.is_http else f"status {error.status:04X}H"
        return f"the archive answered a query with a failure ({code})"
    return error.redacted if isinstance(error, OperatorActionRequired) else str(error)


class OperatorActionRequired(ArchiveError):
    """Asking on would be of no use before a person has acted; the message says what to do.

    ``told``: the same without the archive's own words, where these are in the message.
    """

    def __init__(self, message: str, *, redacted: str = "") -> None:
        super().__init__(message)
        self.redacted = redacted or message


class ProtocolError(QuarryError):
    """Bytes, or an order of messages, that DICOM does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: the association must be aborted."""


class LocalProtocolError(ProtocolError):
    """Quarry itself tried something that the protocol does not allow here."""


class InstanceRefused(QuarryError):
    """An instance is not taken; ``status`` is the C-STORE status for its sender (PS3.4 B.2.3)."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OutOfSpace(InstanceRefused):
    """There is no room for the instance now; the sender may try again (0xA700)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=0xA700)


class LedgerError(QuarryError):
    """The job's ledger cannot be opened or does not fit this version of Quarry."""
