"""The demo archive's DICOMweb services, on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from dicom_quarry.demo import dicomweb_services
from dicom_quarry.demo.dicomweb_services import CloseConnection, WebRequest, WebResponse
from dicom_quarry.demo.query_matching import Catalogue


class DemoWebServer:
    """Serves a catalogue with a thread for each connection; a misbehaving server overrides ``respond``."""

    def __init__(self, catalogue: Catalogue, *, port: int = 0) -> None:
        self.catalogue = catalogue
        self.port = port
        self._server: ThreadingHTTPServer | None = None

    @property
    def base_url(self) -> str:
        """The address of the services."""
        return f"http://127.0.0.1:{self.port}{dicomweb_services.BASE_PATH}"

    def start(self) -> Self:
        """Listen and serve; afterwards :attr:`port` is the port in use."""
        web = self

        class Handler(_Handler):
            respond = staticmethod(
                lambda target, headers: web.respond(dicomweb_services.parse_request(target, headers))
            )

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        serve = self._server.serve_forever
        threading.Thread(target=serve, args=(0.05,), name="demo-web", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def respond(self, request: WebRequest | None) -> WebResponse:
        """Return the response to a request."""
        if request is None:
            return WebResponse(404)
        handler = dicomweb_services.search if request.is_search else dicomweb_services.retrieve
        return handler(self.catalogue, request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    @staticmethod
    def respond(target: str, headers: dict[str, str]) -> WebResponse:
        raise NotImplementedError

    def do_GET(self) -> None:
        """Send the response; a body with ``chunks`` is sent chunked (RFC 9112 7.1)."""
        response = self.respond(self.path, dict(self.headers.items()))
        try:
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            if response.chunks is None:
                self._send_whole(response)
            else:
                self._send_chunks(response.chunks)
        except (CloseConnection, OSError):
            self.close_connection = True

    def _send_whole(self, response: WebResponse) -> None:
        if "Content-Length" not in response.headers and response.status != 204:  # RFC 9110 8.6
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)

    def _send_chunks(self, chunks: Iterable[bytes | memoryview]) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            if len(chunk):
                self.wfile.write(b"%x\r\n" % len(chunk))
                self.wfile.write(chunk)
                self.wfile.write(b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Log nothing: the terminal shows the progress of an extraction."""
