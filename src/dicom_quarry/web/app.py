"""The addresses of the pages."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import BinaryIO

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dicom_quarry import api
from dicom_quarry.api import JobPlace, WebPlace
from dicom_quarry.api.pages import element
from dicom_quarry.errors import InputError, LedgerError, QuarryError
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.web import workers_page
from dicom_quarry.web.actions import Actions, describe_failure
from dicom_quarry.web.assets import live_script, style_sheet
from dicom_quarry.web.context import WebContext
from dicom_quarry.web.frame import make_page, make_refusal
from dicom_quarry.web.guard import Guard
from dicom_quarry.web.job_page import job_page, look_at_job, make_job
from dicom_quarry.web.jobs_page import job_address, jobs_page, look_at_jobs, make_jobs
from dicom_quarry.web.live import live_response
from dicom_quarry.web.rows_pages import row_page, rows_page

_KEY = re.compile(r"[0-9a-f]{16}", re.ASCII)

#: Largest row number, and bytes that are read from a report at once.
_MAX_ROW = 2**62
_CHUNK = 1 << 18


def make_app(context: WebContext, place: WebPlace) -> ASGIApp:
    """Return the application: the pages behind their guard."""
    site = _Site(context, place)
    routes = [
        Route("/", site.jobs),
        Route("/start", site.start),
        Route("/style.css", site.style),
        Route("/live.js", site.script),
        Route("/events", site.jobs_events),
        Route(workers_page.ADDRESS, site.workers),
        Route(f"{workers_page.ADDRESS}/events", site.workers_events),
        Route("/jobs/{key}", site.job),
        Route("/jobs/{key}/events", site.job_events),
        Route("/jobs/{key}/rows", site.rows),
        Route("/jobs/{key}/rows/{row:int}", site.row),
        Route("/jobs/{key}/reports/{name}", site.report),
        Route("/jobs/{key}/{action}", site.act, methods=["POST"]),
    ]

    def refuse(status: int, sentence: str) -> Response:
        return make_refusal(context, status, sentence)

    async def on_http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {404: "There is no such page, job or row.", 405: "This address takes no such request."}
        return refuse(error.status_code, sentences.get(error.status_code, error.detail))

    async def on_job_error(_: Request, error: Exception) -> Response:
        return refuse(404 if isinstance(error, InputError) else 503, str(error))

    handlers: dict[int | type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: on_http_error,
        InputError: on_job_error,
        LedgerError: on_job_error,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), context.sessions, refuse)


class _Site:
    """The functions behind the addresses; those without ``async`` run in threads."""

    def __init__(self, context: WebContext, place: WebPlace) -> None:
        self._context = context
        self._place = place
        self._actions = Actions()

    async def start(self, request: Request) -> Response:
        """Begin a session with the token of a link; a program that only looks at a link does not use it."""
        if request.method == "HEAD":
            raise HTTPException(405)
        if not self._place.use_token(request.query_params.get("token", "")):
            return make_refusal(
                self._context,
                403,
                "This link was used already, or has expired. Run quarry web once more for a new one.",
            )
        response = RedirectResponse("/", status_code=303)
        sessions = self._context.sessions
        value = sessions.create(time.monotonic())
        cookie = f"{sessions.cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict"
        response.headers.append("Set-Cookie", cookie)
        return response

    def style(self, _: Request) -> Response:
        """Return the style sheet."""
        return PlainTextResponse(style_sheet(), media_type="text/css")

    def script(self, _: Request) -> Response:
        """Return the script of live updates."""
        return PlainTextResponse(live_script(), media_type="text/javascript")

    def jobs(self, _: Request) -> Response:
        """Return the page of all jobs."""
        return jobs_page(self._context)

    async def jobs_events(self, _: Request) -> Response:
        """Send the changes of the page of all jobs."""
        return live_response(partial(look_at_jobs, self._context), make_jobs, self._context.stopping)

    def workers(self, _: Request) -> Response:
        """Return the page of the workers; raises HTTPException (404) without a database."""
        if not api.has_cluster():
            raise HTTPException(404)
        return workers_page.workers_page(self._context)

    async def workers_events(self, _: Request) -> Response:
        """Send the changes of the page of the workers."""
        return live_response(self._context.cluster.look, workers_page.make_workers, self._context.stopping)

    def job(self, request: Request) -> Response:
        """Return the page of a job."""
        return job_page(self._context, _find_job(request))

    async def job_events(self, request: Request) -> Response:
        """Send the changes of the page of a job."""
        folder = await run_in_threadpool(_find_job, request)
        return live_response(
            partial(look_at_job, self._context, folder),
            partial(make_job, self._context, folder),
            self._context.stopping,
        )

    def rows(self, request: Request) -> Response:
        """Return a page of rows."""
        values = request.query_params
        try:
            outcome = OutcomeStatus(values["outcome"]) if values.get("outcome") else None
            after, before = _row_number(values.get("after")) or 0, _row_number(values.get("before"))
        except ValueError:
            raise HTTPException(404) from None
        return rows_page(self._context, _find_job(request), outcome, after, before)

    def row(self, request: Request) -> Response:
        """Return the history of a row."""
        number = request.path_params["row"]
        page = row_page(self._context, _find_job(request), number) if number <= _MAX_ROW else None
        if page is None:
            raise HTTPException(404)
        return page

    def report(self, request: Request) -> Response:
        """Return a report as a file to save."""
        name = request.path_params["name"]
        stream = api.open_report(
            _find_job(request).out, name, with_identifiers=self._context.with_identifiers
        )
        # The name is on the fixed list. A report that is a page is saved, not shown as one of this server.
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(_chunks(stream), media_type="application/octet-stream", headers=headers)

    def act(self, request: Request) -> Response:
        """Stop or start a job."""
        context, folder = self._context, _find_job(request)
        if not context.allow_actions:
            return make_refusal(
                context, 403, "These pages are read-only. Start  quarry web --allow-actions  for buttons."
            )
        try:
            self._actions.run(folder, request.path_params["action"])
        except QuarryError as error:
            sentence = element("p", describe_failure(error))
            trail = [(folder.label, job_address(folder))]
            return make_page(context, "Not done", sentence, trail=trail, status=409)
        return RedirectResponse(job_address(folder), status_code=303)


def _find_job(request: Request) -> JobPlace:
    """Return the job of an address; raises HTTPException (404) if this user has no such job."""
    key = request.path_params["key"]
    folder = api.find_job(key) if _KEY.fullmatch(key) else None
    if folder is None:
        raise HTTPException(404)
    return folder


def _row_number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(text)
    return int(text)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
