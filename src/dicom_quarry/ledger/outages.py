"""A server that is away: it is waited for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TypeVar

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.backend import Backend

_log = logging.getLogger("dicom_quarry.ledger")

T = TypeVar("T")

#: Seconds for which a running job waits for a server that is away: a restart, or a fail-over.
MAX_OUTAGE = 600.0


def retry_while_away(backend: Backend, work: Callable[[], T], max_outage: float) -> T:
    """Call ``work`` again while its error is a temporary one, for ``max_outage`` seconds at most."""
    give_up_at, pause = math.inf, 0.1
    while True:
        try:
            return work()
        except Exception as error:
            give_up_at = min(give_up_at, time.monotonic() + max_outage)
            cause = error.__cause__ if isinstance(error, LedgerError) else error
            if cause is None or not backend.is_temporary(cause) or time.monotonic() + pause > give_up_at:
                raise
            _log.warning("the database does not answer; trying again in %.1f s", pause)
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
