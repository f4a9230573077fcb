"""The one table of HTTP statuses and what to do next (PS3.18 8.5, 10.4.3, 10.6.3; RFC 9110, RFC 6585).

As with DIMSE statuses the verdict decides how to continue, never that a study is complete.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dicom_quarry.archive.base import StatusMeaning, Verdict
from dicom_quarry.system.numbers import parse_number

#: The longest pause of a busy archive that is respected, in seconds.
MAX_RETRY_AFTER = 3600.0

_LATER = "Try again later, with fewer operations at once."
_LOG = "Check the archive's log for this time."
_LESS = "Request less at once: by series, then by instance."
_ADDRESS = "Check the address of its DICOMweb services."
_ACCESS = "Check [archive.NAME.http] in quarry.toml, and that this user may query and retrieve."
_PROXY = 'Put them into HTTPS_PROXY or HTTP_PROXY, and set proxy = "environment" in quarry.toml.'

_TABLE: dict[int, StatusMeaning] = {
    200: StatusMeaning(Verdict.SUCCESS, "The archive reports success."),
    204: StatusMeaning(Verdict.WARNING, "The archive has nothing to send"),
    206: StatusMeaning(
        Verdict.WARNING, "The archive sent only a part of the requested data", "Request what is missing."
    ),
    400: StatusMeaning(Verdict.UNSUPPORTED, "The archive finds the request malformed", _LESS),
    401: StatusMeaning(Verdict.CONFIGURATION, "The archive does not accept these credentials", _ACCESS),
    403: StatusMeaning(Verdict.CONFIGURATION, "The archive does not allow this request", _ACCESS),
    404: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not find the requested data", _ADDRESS),
    405: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not offer this service", _ADDRESS),
    406: StatusMeaning(
        Verdict.UNSUPPORTED,
        "The archive does not send files as they are stored, in any transfer syntax",
        "Fetch by C-MOVE or C-GET.",
    ),
    407: StatusMeaning(Verdict.CONFIGURATION, "The proxy requires a user and a password", _PROXY),
    408: StatusMeaning(Verdict.RETRY, "The archive waited too long for the request", _LATER),
    409: StatusMeaning(Verdict.RETRY, "The archive is changing the requested data", _LATER),
    410: StatusMeaning(Verdict.UNSUPPORTED, "The archive no longer has the requested data", _LOG),
    413: StatusMeaning(Verdict.UNSUPPORTED, "The archive finds this too much at once", _LESS),
    415: StatusMeaning(
        Verdict.UNSUPPORTED, "The archive does not support the requested media type", _ADDRESS
    ),
    429: StatusMeaning(Verdict.RETRY, "The archive receives too many requests", _LATER),
    500: StatusMeaning(Verdict.RETRY, "The archive failed", _LOG),
    501: StatusMeaning(Verdict.UNSUPPORTED, "The archive does not offer this service", _ADDRESS),
    502: StatusMeaning(Verdict.RETRY, "The server in front of the archive got no response from it", _LATER),
    503: StatusMeaning(Verdict.RETRY, "The archive is too busy", _LATER),
    504: StatusMeaning(Verdict.RETRY, "The server in front of the archive got no response in time", _LATER),
}

_BY_CLASS = {
    2: StatusMeaning(Verdict.WARNING, "The archive answers with an unusual status", _LOG),
    3: StatusMeaning(Verdict.CONFIGURATION, "The archive is at another address", _ADDRESS),
    4: StatusMeaning(Verdict.UNSUPPORTED, "The archive refuses the request", _LOG),
    5: StatusMeaning(Verdict.RETRY, "The archive failed", _LOG),
}

#: Statuses of an archive that is too busy and wants a pause.
_BUSY_STATUSES = frozenset({429, 503})


def interpret_http(status: int) -> StatusMeaning:
    """Return the meaning of the status of a response."""
    meaning = _TABLE.get(status) or _BY_CLASS.get(status // 100)
    return meaning or StatusMeaning(
        Verdict.RETRY, "The archive answers with a status that HTTP does not define", _LOG
    )


def describe(status: int) -> str:
    """Describe a status for a person. The archive's own text is left out: it may repeat the query."""
    meaning = interpret_http(status)
    return f"{meaning.sentence} (HTTP {status}). {meaning.next_step}".strip()


def parse_retry_after(status: int, header: str, now: datetime) -> float | None:
    """Return the pause that a busy archive wants, in seconds (RFC 9110 10.2.3); 0 where it names none.

    None for an archive that is not busy.
    """
    if status not in _BUSY_STATUSES:
        return None
    if header.isascii() and header.isdigit():
        seconds = parse_number(header, int(MAX_RETRY_AFTER))
        return MAX_RETRY_AFTER if seconds is None else float(seconds)
    until = parse_http_date(header)
    return min(max(0.0, (until - now).total_seconds()), MAX_RETRY_AFTER) if until else 0.0


def parse_http_date(text: str) -> datetime | None:
    """Read a date of HTTP (RFC 9110 5.6.7); None for any other text."""
    try:
        moment = parsedate_to_datetime(text)
        # An aware date next to year 1 or 9999 cannot be compared with another time zone's.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, IndexError, OverflowError):
        return None
