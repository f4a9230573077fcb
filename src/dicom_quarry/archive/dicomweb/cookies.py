"""Cookies of one origin, kept in memory (RFC 6265).

A load balancer may need them to send a session's requests to the same server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_quarry.archive.dicomweb.status import parse_http_date
from dicom_quarry.model import BaseUri
from dicom_quarry.system.numbers import parse_number

#: Most cookies of the origin; a further one replaces the oldest.
MAX_COOKIES = 20

#: Longest Set-Cookie header, in characters; a longer one is ignored.
MAX_COOKIE_SIZE = 4096

#: Most characters of all cookies in a request: servers refuse larger headers.
MAX_COOKIES_SIZE = 6144

#: Longest life of a cookie, in seconds.
_MAX_AGE = 400 * 86_400

# A value must not begin another header or another cookie.
_PAIR = re.compile(r"([!#-'*+\-.0-9A-Z^_`a-z|~]+)\s*=\s*([!-:<-~](?:[ -:<-~]*[!-:<-~])?)?")


@dataclass(frozen=True, slots=True)
class _Cookie:
    value: str
    expires: datetime | None


class CookieJar:
    """The cookies of the scheme, host and port of ``base``; they go back to it alone."""

    def __init__(self, base: BaseUri) -> None:
        self._base = base
        self._cookies: dict[tuple[str, str], _Cookie] = {}  # by path and name, the oldest first

    def store(self, header: str, request_path: str, now: datetime) -> None:
        """Take the cookie of one Set-Cookie header, or delete one that it ends; ignore what is unusable."""
        if len(header) > MAX_COOKIE_SIZE:
            return
        pair, *fields = header.split(";")
        found = _PAIR.fullmatch(pair.strip())
        attributes = {
            name.strip().lower(): value.strip()
            for name, _, value in (field.partition("=") for field in fields)
        }
        if found is None or not self._is_own(attributes):
            return
        path = attributes.get("path", "")
        if not path.startswith("/"):
            path = request_path.rpartition("/")[0] or "/"
        key = (path, found[1])
        self._cookies.pop(key, None)
        expires = _expiry(attributes, now)
        if expires is None or expires > now:
            self._cookies[key] = _Cookie(found[2] or "", expires)
        while len(self._cookies) > MAX_COOKIES or self._size > MAX_COOKIES_SIZE:
            del self._cookies[next(iter(self._cookies))]

    def header(self, request_path: str, now: datetime) -> str:
        """Return the Cookie header for a request, longest paths first (RFC 6265 5.4); empty for none."""
        self._cookies = {
            key: cookie for key, cookie in self._cookies.items() if not cookie.expires or cookie.expires > now
        }
        matching = [
            (path, f"{name}={cookie.value}")
            for (path, name), cookie in self._cookies.items()
            if _path_matches(request_path, path)
        ]
        return "; ".join(pair for _, pair in sorted(matching, key=lambda one: -len(one[0])))

    @property
    def _size(self) -> int:
        return sum(len(name) + len(cookie.value) + 3 for (_, name), cookie in self._cookies.items())

    def _is_own(self, attributes: dict[str, str]) -> bool:
        """Return True if the origin may set it: not for another domain, and none for https over http."""
        domain = attributes.get("domain", "").removeprefix(".").lower()
        host = self._base.host
        if domain and host != domain and not host.endswith(f".{domain}"):
            return False
        return "secure" not in attributes or self._base.scheme == "https"


def _expiry(attributes: dict[str, str], now: datetime) -> datetime | None:
    """Return the moment at which a cookie ends: Max-Age counts before Expires (RFC 6265 5.3)."""
    age = attributes.get("max-age", "")
    if re.fullmatch(r"-[0-9]+", age):
        return now
    if re.fullmatch("[0-9]+", age):
        seconds = parse_number(age, _MAX_AGE)
        return now + timedelta(seconds=_MAX_AGE if seconds is None else seconds)
    return parse_http_date(attributes["expires"]) if "expires" in attributes else None


def _path_matches(request_path: str, path: str) -> bool:
    """Return True if a cookie's path contains a request's (RFC 6265 5.1.4)."""
    return request_path == path or request_path.startswith(path if path.endswith("/") else f"{path}/")
