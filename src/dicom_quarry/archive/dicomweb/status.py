"""The one table: what an HTTP status says about what to do (PS3.18 8.5, 10.4.3, 10.6.3; RFC 9110, RFC 6585).

As with DIMSE statuses the verdict says how to go on, never that a study is complete.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from dicom_quarry.archive.base import StatusMeaning, Verdict
from dicom_quarry.errors import ArchiveError, ConnectionLost, OperatorActionRequired, Unreachable
from dicom_quarry.model import BaseUri
from dicom_quarry.wire import error_messages

#: An archive that wants to be left alone for longer is asked again after this time, in seconds.
MAX_RETRY_AFTER = 3600.0

_LATER = "Ask again later, with fewer operations at once."
_LOG = "Look into the archive's log for this time."
_LESS = "Ask for less at once: by series, then by instance."
_ADDRESS = "Check the address of its DICOMweb services."
_ACCESS = "Check [archive.NAME.http] in quarry.toml; have this user allowed to query and retrieve."
_PROXY = 'A user and password for it stand in the environment: set proxy = "environment" in quarry.toml.'

_TABLE: dict[int, StatusMeaning] = {
    200: StatusMeaning(Verdict.SUCCESS, "The archive reports success."),
    204: StatusMeaning(Verdict.WARNING, "The archive has nothing to send"),
    206: StatusMeaning(
        Verdict.WARNING, "The archive sends only a part of what was asked for", "Ask for what is missing."
    ),
    400: StatusMeaning(Verdict.UNSUPPORTED, "The archive finds the request malformed", _LESS),
    401: StatusMeaning(Verdict.CONFIGURATION, "The archive does not accept our credentials", _ACCESS),
    403: StatusMeaning(Verdict.CONFIGURATION, "The archive does not allow this", _ACCESS),
    404: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not find what was asked for", _ADDRESS),
    405: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not offer this service", _ADDRESS),
    406: StatusMeaning(
        Verdict.UNSUPPORTED,
        "The archive does not send files as they are stored, in any transfer syntax",
        "Fetch by C-MOVE or C-GET.",
    ),
    407: StatusMeaning(Verdict.CONFIGURATION, "The proxy wants to know who we are", _PROXY),
    408: StatusMeaning(Verdict.RETRY, "The archive waited too long for the request", _LATER),
    409: StatusMeaning(Verdict.RETRY, "The archive is changing what was asked for", _LATER),
    410: StatusMeaning(Verdict.UNSUPPORTED, "The archive has what was asked for no longer", _LOG),
    413: StatusMeaning(Verdict.UNSUPPORTED, "The archive calls this too much at once", _LESS),
    415: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not know the form that was asked for", _ADDRESS
    ),
    429: StatusMeaning(Verdict.RETRY, "The archive is asked too often", _LATER),
    500: StatusMeaning(Verdict.RETRY, "The archive failed", _LOG),
    501: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not offer this service", _ADDRESS),
    502: StatusMeaning(Verdict.RETRY, "What stands before the archive got no answer from it", _LATER),
    503: StatusMeaning(Verdict.RETRY, "The archive is too busy", _LATER),
    504: StatusMeaning(Verdict.RETRY, "What stands before the archive got no answer in time", _LATER),
}

_BY_CLASS = {
    2: StatusMeaning(Verdict.WARNING, "The archive answers with something unusual", _LOG),
    3: StatusMeaning(Verdict.CONFIGURATION, "The archive is at another address", _ADDRESS),
    4: StatusMeaning(Verdict.UNSUPPORTED, "The archive refuses", _LOG),
    5: StatusMeaning(Verdict.RETRY, "The archive failed", _LOG),
}

#: Too much is asked of the archive: it wants to be left alone for a while.
_BUSY_STATUSES = frozenset({429, 503})


def interpret_http(status: int) -> StatusMeaning:
    """What the status of a request for resources means."""
    meaning = _TABLE.get(status) or _BY_CLASS.get(status // 100)
    return meaning or StatusMeaning(
        Verdict.RETRY, "The archive answers with a status that HTTP does not define", _LOG
    )


def describe(status: int) -> str:
    """The status for a person. The archive's own text is left out: it may repeat what was asked for."""
    meaning = interpret_http(status)
    return f"{meaning.sentence} (HTTP {status}). {meaning.next_step}".strip()


def parse_retry_after(status: int, header: str, now: datetime) -> float | None:
    """For how many seconds a busy archive wants to be left alone (RFC 9110 10.2.3): 0 where it does not say.

    None for an archive that is not busy.
    """
    if status not in _BUSY_STATUSES:
        return None
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, (until - now).total_seconds()), MAX_RETRY_AFTER)


@contextmanager
def translate_errors(
    base: BaseUri, proxy: str, connect_timeout: float, read_timeout: float | None
) -> Iterator[None]:
    """For a request and its answer: raises Unreachable, Lost and Unusable; both times are in seconds."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unreachable(_describe_connect_error(base, proxy, connect_timeout, error)) from error
    except httpx.ProxyError as error:
        raise _make_proxy_error(base, error) from error
    except httpx.UnsupportedProtocol as error:
        raise Unreachable(f"no way to {base}: {type(error).__name__}") from error
    except httpx.ReadTimeout as error:
        raise ConnectionLost(f"{base} was silent for {read_timeout or 0:.0f} s") from error
    except httpx.RemoteProtocolError as error:
        raise ConnectionLost(
            f"{base} broke off in the middle of an answer, or does not speak HTTP"
        ) from error
    except httpx.HTTPError as error:
        raise ConnectionLost(f"the connection to {base} was lost: {type(error).__name__}") from error


@contextmanager
def translate_tls_rejection(base: BaseUri) -> Iterator[None]:
    """For a request until its answer begins: with TLS 1.3 a server judges our certificate after our side of
    the handshake is done (RFC 8446 2), so its refusal is read in place of an answer.
    """
    try:
        yield
    except (httpx.ReadError, httpx.RemoteProtocolError) as error:
        if base.scheme != "https":
            raise
        cause = _find_os_error(error)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            raise Unreachable(error_messages.describe_tls_error(f"{base.host}:{base.port}", cause)) from error
        # Its word may have been lost, or it said none; and a server that breaks down does the same.
        raise ConnectionLost(
            f"{base} ended the connection without an answer, or does not speak HTTP: "
            "does it want another certificate of ours?"
        ) from error


def _describe_connect_error(
    base: BaseUri, proxy: str, connect_timeout: float, error: httpx.TransportError
) -> str:
    missing = TimeoutError() if isinstance(error, httpx.TimeoutException) else OSError()
    cause = _find_os_error(error) or missing
    direct = error_messages.describe_connect_error(base.host, base.port, connect_timeout, cause)
    if not proxy or isinstance(cause, ssl.SSLError):  # no TLS is spoken with a proxy
        return direct
    if proxy == "environment":
        return f"{direct} (or it is the proxy that the environment names)"
    where = urlsplit(proxy)
    why = error_messages.describe_connect_error(
        where.hostname or "", where.port or 80, connect_timeout, cause
    )
    return f"no way to {base} by the proxy: {why}"


def _make_proxy_error(base: BaseUri, error: httpx.ProxyError) -> ArchiveError:
    """The status of an answer to CONNECT is all that is known of it: its text begins with it."""
    status = str(error)[:3]
    if status == "407":
        return OperatorActionRequired(f"no way to {base} by the proxy: {describe(407)}")
    known = f" (HTTP {status})" if status.isdecimal() else ""
    return Unreachable(f"no way to {base} by the proxy: it does not let us through{known}")


def _find_os_error(error: BaseException) -> OSError | None:
    """What the system said, which was wrapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
