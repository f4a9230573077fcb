"""The one table: what an HTTP status says about what to do (PS3.18 8.5, 10.4.3, 10.6.3; RFC 9110, RFC 6585).

As with DIMSE statuses the verdict says how to go on, never that a study is complete.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dicom_quarry.archive.base import Verdict
from dicom_quarry.archive.meaning import StatusMeaning

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
