"""Live updates of a page: one EventSource that sends the parts that have changed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

#: Seconds between two looks, and of silence after which a comment shows that the connection is alive.
_INTERVAL, _SILENCE = 0.7, 15.0

#: The inner HTML of the parts of a page, by the ids of their elements.
Parts = Mapping[str, str]


State = TypeVar("State")


def live_response(
    look: Callable[[], State], make_parts: Callable[[State], Parts], stopping: asyncio.Event
) -> StreamingResponse:
    """Return a response that sends the parts that changed, until the page is closed or the server ends.

    ``look`` returns the state of what the page shows, at little cost; the parts are made from a new one.
    """
    return StreamingResponse(_changes(look, make_parts, stopping), media_type="text/event-stream")


async def _changes(
    look: Callable[[], State], make_parts: Callable[[State], Parts], stopping: asyncio.Event
) -> AsyncIterator[str]:
    shown: State | None = None
    sent: dict[str, str] = {}
    sent_at = time.monotonic()
    while not stopping.is_set():
        changed = {}
        state = await run_in_threadpool(look)
        if state != shown:
            shown, parts = state, await run_in_threadpool(make_parts, state)
            changed = {name: text for name, text in parts.items() if sent.get(name) != text}
        if changed:
            sent |= changed
            yield f"event: parts\ndata: {json.dumps(changed)}\n\n"
            sent_at = time.monotonic()
        elif time.monotonic() - sent_at >= _SILENCE:
            yield ":\n\n"
            sent_at = time.monotonic()
        await _wait(stopping, _INTERVAL)


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        pass
