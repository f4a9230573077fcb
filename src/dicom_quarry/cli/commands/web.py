"""``quarry web``: pages about this user's jobs, with live updates, for this user's browser alone."""

from __future__ import annotations

import os
import threading
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.cli import options
from dicom_quarry.cli.console import write_line


def web(
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Listen on this port of 127.0.0.1; 0: any.  [default: a Unix socket of yours]",
        ),
    ] = None,
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Show buttons that stop, resume and retry jobs.")
    ] = False,
    identifiers: options.Identifiers = False,
) -> None:
    """Show your jobs in a browser, with live updates.

    Prints an ssh command for your own computer, and a link that opens the pages once, within ten minutes. For
    another link, run quarry web again. Other users of this computer cannot open the pages. Ctrl-C ends it.
    Needs pip install 'dicom-quarry[web]'.

    Exit codes: 0 ended by Ctrl-C; 3 could not start, such as for a port in use.

    Examples:
      quarry web
      quarry web --port 8765
      quarry web --allow-actions
    """
    with api.extra_imports("web", "quarry web"):
        from dicom_quarry.web.app import make_app
        from dicom_quarry.web.context import WebContext
        from dicom_quarry.web.server import serve

    context = WebContext(allow_actions=allow_actions, with_identifiers=identifiers)
    with api.open_web_place(port) as (place, listener):
        write_line(place.explain_link())
        write_line("For another link, run quarry web again. Press Ctrl-C to end.")
        serve(make_app(context, place), listener, context.stopping)
    write_line("ended")
    if threading.active_count() > 1:
        # A thread may read a large record for a page that nobody sees any more: it is not waited for.
        os._exit(0)
