"""The guard in front of every page: wrong hosts, foreign pages and requests without a session are refused.

On a computer with several users a port of loopback is open to all of them, and every web page that a browser
shows can send requests to it. Therefore:

- The Host header must name loopback: a foreign name that was made to resolve to it is refused. Its port is
  that of the user's own computer, and any.
- A request that changes something must come from a page of this server, by its Origin header.
- All but the link and the style sheet need a session, by a cookie that scripts cannot read, and that the
  browser sends with no request of another site.
- Pages may load and run only what this server sends, are in no frame, and are not stored.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_quarry.web.sessions import Sessions

_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE | re.ASCII)

#: The link, and what a page without a session needs.
_OPEN_PATHS = frozenset({"/start", "/style.css"})

_SAFE_METHODS = frozenset({"GET", "HEAD"})

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    # A form of a page with no-referrer would be sent without its origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

#: Makes the response to a refused request, from a status and a sentence.
Refuse = Callable[[int, str], Response]


class Guard:
    """An ASGI application in front of another one; ``refuse`` makes the page for a refused request."""

    def __init__(self, app: ASGIApp, sessions: Sessions, refuse: Refuse) -> None:
        self._app = app
        self._sessions = sessions
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        refused = self._check(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> Response | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        host = headers.get("host", "")
        if not _HOST.fullmatch(host):
            return self._refuse(400, "This server answers only to localhost and 127.0.0.1.")
        if method not in _SAFE_METHODS and not is_same_origin(headers.get("origin"), host):
            return self._refuse(403, "This request came from a page of another site.")
        if path not in _OPEN_PATHS and not self._has_session(headers.get("cookie", "")):
            return self._refuse(401, "There is no session in this browser.")
        return None

    def _has_session(self, text: str) -> bool:
        # Not the parser of Python: it takes no cookie behind one that it does not like.
        cookie = cookie_parser(text).get(self._sessions.cookie_name)
        return cookie is not None and self._sessions.is_valid(cookie, time.monotonic())


def is_same_origin(origin: str | None, host: str) -> bool:
    """Return True if the Origin header of a request is this server, as the browser addresses it."""
    return origin is not None and origin.lower() == f"http://{host}".lower()
