"""The next step for a connection to PostgreSQL that fails."""

from __future__ import annotations

from typing import Final

_NO_CONNECTION_LEFT = "end other programs that use it, or have its administrator raise max_connections"
_MISTAKE_OR_MISSING = "look for a mistake in the URL, or have its administrator make it"

#: By a part of the sentence of server or driver, in lower case; the first that is found counts.
_NEXT_STEPS: Final = {
    "no password supplied": (
        "write the password to ~/.pgpass (HOST:PORT:DATABASE:USER:PASSWORD, then chmod 600 ~/.pgpass), to "
        "the variable PGPASSWORD, or to a file that password-file names"
    ),
    "password authentication failed": (
        "look at the password in ~/.pgpass, the variable PGPASSWORD, or the file of password-file"
    ),
    "too many clients": _NO_CONNECTION_LEFT,
    "connection slots": _NO_CONNECTION_LEFT,
    "no pg_hba.conf entry": "have its administrator let this user and this computer in (pg_hba.conf)",
    "fatal: database": _MISTAKE_OR_MISSING,
    "fatal: role": _MISTAKE_OR_MISSING,
    "certificate": "name the certificate of its authority with sslrootcert=FILE in the URL",
    "translate host name": "look for a mistake in the name of the computer",
    "resolve host": "look for a mistake in the name of the computer",
    "refused": "have it started, or look for a mistake in the URL",
    "timeout": "see if the computer is on, and if a firewall lets you through",
}


def describe_failure(error: BaseException) -> str:
    """Return the reason of server or driver in one line, and the next step where it is known."""
    reason = " ".join(str(error).split())
    step = next((step for words, step in _NEXT_STEPS.items() if words in reason.lower()), "")
    return f"{reason}: {step}" if step else reason
