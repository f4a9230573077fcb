"""The sessions of browsers that opened the link of ``quarry web``. No I/O; time is an argument."""

from __future__ import annotations

import hashlib
import hmac
import secrets

#: Seconds after its last request at which a session ends, and most sessions at once; the oldest ends first.
LIFETIME = 12 * 3600.0
_MAX_SESSIONS = 32


class Sessions:
    """The sessions of one server.

    Only digests of the cookies are kept. ``cookie_name`` is unique, since browsers send the cookies of one
    port to all ports of ``localhost``: the servers of two users keep their sessions apart.
    """

    def __init__(self) -> None:
        self.cookie_name = f"quarry_{secrets.token_hex(6)}"
        self._expiry: dict[str, float] = {}

    def create(self, now: float) -> str:
        """Begin a session; return the value of its cookie."""
        value = secrets.token_urlsafe(32)
        while len(self._expiry) >= _MAX_SESSIONS:
            del self._expiry[next(iter(self._expiry))]
        self._expiry[_digest(value)] = now + LIFETIME
        return value

    def is_valid(self, value: str, now: float) -> bool:
        """Return True if a cookie is that of a session, which is prolonged."""
        given = _digest(value)
        found = [one for one in self._expiry if hmac.compare_digest(one, given)]
        if not found or self._expiry[found[0]] < now:
            return False
        self._expiry[found[0]] = now + LIFETIME
        return True


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
