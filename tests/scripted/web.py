"""The demo archive's DICOMweb services with faults switched on; see :mod:`tests.scripted.web_faults`."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Self

from dicom_quarry.demo.dicomweb_server import DemoWebServer
from dicom_quarry.demo.dicomweb_services import WebRequest, WebResponse
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.synthetic_studies import DemoStudy
from tests.scripted.fault_schedule import Turns


class WebFault(Turns):
    """One thing that goes wrong; the hooks of this base class change nothing.

    Hooks run in threads of the server; where one waits, it waits for ``web.stopped``.
    """

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        """Return an answer in place of the right one, or None."""
        return None

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        """Return the answer to send, made of the right one."""
        return reply


class ScriptedWeb(DemoWebServer):
    """Server whose ``faults`` act in their order; ``log`` are all requests that came."""

    def __init__(
        self, studies: Iterable[DemoStudy], faults: Iterable[WebFault] = (), *, port: int = 0
    ) -> None:
        super().__init__(Catalogue(studies), port=port)
        self.faults = list(faults)
        self.log: list[WebRequest] = []
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()
        super().stop()

    def requests(self, *, search: bool, level: str = "") -> list[WebRequest]:
        """The searches, or retrievals, at this level where one is given."""
        return [one for one in self.log if one.is_search == search and level in ("", one.query.level)]

    def right_answer(self, request: WebRequest) -> WebResponse:
        """Return the answer of a server without faults."""
        return super().respond(request)

    def respond(self, request: WebRequest | None) -> WebResponse:
        if request is None:
            return super().respond(request)
        self.log.append(request)
        instead = (fault.intercept(self, request) for fault in self.faults)
        reply = next((one for one in instead if one is not None), None) or super().respond(request)
        for fault in self.faults:
            reply = fault.reply(self, request, reply)
        return reply


class TlsWeb(ScriptedWeb):
    """The same over https, as ``context`` has it."""

    def __init__(
        self, studies: Iterable[DemoStudy], context: ssl.SSLContext, faults: Iterable[WebFault] = ()
    ) -> None:
        super().__init__(studies, faults)
        self._context = context

    @property
    def base_url(self) -> str:
        return super().base_url.replace("http://", "https://")

    def start(self) -> Self:
        super().start()
        assert self._server is not None
        self._server.get_request = self._accept  # type: ignore[method-assign]
        return self

    def _accept(self) -> tuple[ssl.SSLSocket, tuple[str, int]]:
        """Accept a connection; after an OSError the server continues."""
        assert self._server is not None
        plain, peer = self._server.socket.accept()
        plain.settimeout(10)
        client = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        try:
            client.do_handshake()
        except ssl.SSLError:
            # Close after the client: what it has sent would make this a reset, and the alert would be lost.
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
            client.close()
            raise
        client.settimeout(None)
        return client, peer
