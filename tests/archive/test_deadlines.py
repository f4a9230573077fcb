"""A request over HTTP, and the body of its response, end by the clock, whatever drips in."""

from __future__ import annotations

import threading
import time

import pytest

from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.config.credentials import HttpSettings
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import BaseUri
from tests.peers.process import wait_for
from tests.scripted.dripping_web import DRIPS, DrippingWeb

#: Seconds; far more than a deadline here, and far less than what drips would take.
MARGIN = 30.0


def read(client: HttpClient, **options: object) -> bytes:
    with client.get("/studies", accept="*/*", **options) as response:  # type: ignore[arg-type]
        return b"".join(response.iter_raw())


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["at once", "slowly"])
@pytest.mark.parametrize("drip", DRIPS)
def test_a_response_has_a_deadline(drip: str, pause: float) -> None:
    with DrippingWeb(drip, pause) as web:
        client = HttpClient(BaseUri.parse(web.base_url), HttpSettings())
        began = time.monotonic()
        with pytest.raises(ArchiveError):
            read(client, read_timeout=0.2)
        assert time.monotonic() - began < MARGIN


@pytest.mark.parametrize("drip", DRIPS)
def test_the_owner_of_a_request_without_a_deadline_is_called(drip: str) -> None:
    class Enough(Exception):
        pass

    def tick() -> None:
        raise Enough

    with DrippingWeb(drip, 0.01) as web, pytest.raises(Enough):
        read(HttpClient(BaseUri.parse(web.base_url), HttpSettings()), tick=tick)


@pytest.mark.parametrize("drip", DRIPS)
def test_closing_cuts_a_request_of_another_thread(drip: str) -> None:
    ended = threading.Event()
    with DrippingWeb(drip, 0.3) as web:
        client = HttpClient(BaseUri.parse(web.base_url), HttpSettings())

        def request() -> None:
            try:
                read(client)
            except ArchiveError:
                ended.set()

        thread = threading.Thread(target=request)
        thread.start()
        wait_for(lambda: web.calls > 0, "the request")
        began = time.monotonic()
        client.close()
        thread.join(MARGIN)
        assert ended.is_set() and time.monotonic() - began < MARGIN
