"""The server of ``quarry web``: uvicorn on a socket of ours, which ends at once with Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

#: Most connections at once; further ones are answered 503.
_MAX_CONNECTIONS = 100

#: Seconds that responses have at the end; pages with live updates are closed before.
_END_TIMEOUT = 1

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Server(uvicorn.Server):
    """Waits for its end without waking up, and leaves signals to :func:`serve`."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own loop wakes up ten times a second."""
        await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


def serve(app: ASGIApp, listener: socket.socket, stopping: asyncio.Event) -> None:
    """Answer requests until SIGINT, SIGTERM or SIGHUP; ``stopping`` is set then, and ends live updates."""
    config = uvicorn.Config(
        app,
        # A log of requests would have the tokens of links.
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_END_TIMEOUT,
    )
    loop = asyncio.new_event_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    loop.run_until_complete(_Server(config, stopping).serve(sockets=[listener]))
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
    # asyncio.run would wait for the threads of requests, of which one may read a large record.
    if not asyncio.all_tasks(loop):
        loop.close()
