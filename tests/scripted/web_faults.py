"""What can go wrong over DICOMweb."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from dicom_quarry.demo.dicomweb_services import (
    BOUNDARY,
    JSON,
    MULTIPART,
    CloseConnection,
    WebRequest,
    WebResponse,
    encode_multipart,
    parse_request,
)
from dicom_quarry.demo.synthetic_studies import DemoInstance
from tests.scripted.web import ScriptedWeb, WebFault

Pieces = Iterable[bytes | memoryview]

#: Which requests a fault concerns.
Which = Callable[[WebRequest], bool]


def searches(request: WebRequest) -> bool:
    """QIDO-RS."""
    return request.is_search


def retrievals(request: WebRequest) -> bool:
    """WADO-RS."""
    return not request.is_search


def anything(_asked: WebRequest) -> bool:
    """Every request."""
    return True


def lists_study(request: WebRequest) -> bool:
    """QIDO-RS for the instances of a study."""
    return request.is_search and request.query.level == "IMAGE" and "/series/" not in request.target


def lists_series(request: WebRequest) -> bool:
    """QIDO-RS for the instances of a series."""
    return request.is_search and request.query.level == "IMAGE" and "/series/" in request.target


def at(level: str) -> Which:
    """WADO-RS at one level."""
    return lambda request: not request.is_search and request.query.level == level


class Answer(WebFault):
    """This reply to these requests."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        *,
        which: Which = retrievals,
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        super().__init__(times=times)
        self._which = which
        self._reply = WebResponse(status, headers or {}, body)

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        return self._reply if self._which(request) and self.strikes() else None


def web_page(which: Which = retrievals, *, times: int | None = None) -> Answer:
    """A page for people, with status 200."""
    text = b"<!DOCTYPE html><html><body>Please log in</body></html>"
    return Answer(200, text, which=which, headers={"Content-Type": "text/html"}, times=times)


class Partial(WebFault):
    """The first instance alone, with status 206."""

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if request.is_search or request.query.level == "IMAGE" or not self.strikes():
            return reply
        return replace(reply, status=206, chunks=encode_multipart(web.catalogue.select(request.query)[:1]))


class CutBody(WebFault):
    """A body that ends after so many parts and a half.

    ``how``: the connection is cut within chunks (``chunks``), or before the length that was announced is
    reached (``length``); or all ends well but for the closing boundary (``boundary``).
    """

    def __init__(
        self, how: str, *, parts: int = 1, which: Which = retrievals, times: int | None = None
    ) -> None:
        super().__init__(times=times)
        self._how = how
        self._parts = parts
        self._which = which

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not self._which(request) or not self.strikes():
            return reply
        instances = web.catalogue.select(request.query)
        if self._how == "boundary":
            whole = b"".join(encode_multipart(instances[: self._parts]))
            return replace(reply, chunks=[whole.removesuffix(f"--{BOUNDARY}--\r\n".encode())])
        if self._how == "length":
            whole = b"".join(encode_multipart(instances))
            body = self._cut(instances)
            headers = {**reply.headers, "Content-Length": str(len(whole)), "Connection": "close"}
            return WebResponse(reply.status, headers, body)
        return replace(reply, chunks=_then_hang_up(self._cut(instances)))

    def _cut(self, instances: list[DemoInstance]) -> bytes:
        whole = b"".join(encode_multipart(instances))
        until = b"".join(encode_multipart(instances[: self._parts]))
        half = len(b"".join(encode_multipart(instances[: self._parts + 1])))
        return whole[: (len(until) + half) // 2]


def _then_hang_up(body: bytes) -> Iterator[bytes]:
    yield body
    raise CloseConnection


class Compressed(WebFault):
    """A Content-Encoding that was not requested; ``really`` compresses the body, too."""

    def __init__(self, coding: str = "gzip", *, really: bool = False, which: Which = anything) -> None:
        super().__init__()
        self._coding = coding
        self._really = really
        self._which = which

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not self._which(request):
            return reply
        headers = {**reply.headers, "Content-Encoding": self._coding}
        if not self._really:
            return replace(reply, headers=headers)
        body = reply.body if reply.chunks is None else b"".join(reply.chunks)
        compress = gzip.compress if "gzip" in self._coding else zlib.compress
        return WebResponse(reply.status, headers, compress(body))


class Pages(WebFault):
    """An odd way of giving answers: no more than ``cap``, ``limit`` or ``offset`` not heeded.

    ``overlap`` answers are sent again with every page after the first; the page at the ``doubled`` offset is
    the first one again. ``end`` is the answer for a page behind the last, ``status`` that of every page.
    """

    def __init__(
        self,
        *,
        cap: int | None = None,
        limit: bool = True,
        offset: bool = True,
        announces: bool = False,
        overlap: int = 0,
        doubled: int = -1,
        end: WebResponse | None = None,
        status: int = 200,
    ) -> None:
        super().__init__()
        self._cap = cap
        self._limit = limit
        self._offset = offset
        self._announces = announces
        self._overlap = overlap
        self._doubled = doubled
        self._end = end
        self._status = status

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        if not request.is_search:
            return None
        limit = request.limit if self._limit else None
        if self._cap is not None:
            limit = min(limit or self._cap, self._cap)
        offset = max(0, request.offset - self._overlap) if self._offset else 0
        if request.offset == self._doubled:
            offset = 0
        found = web.right_answer(replace(request, limit=limit, offset=offset))
        if found.status == 204 and offset and self._end is not None:
            return self._end
        return replace(found, status=self._status) if found.status == 200 else found

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not self._announces or not request.is_search or reply.status != 200:
            return reply
        if len(json.loads(reply.body)) != self._cap:
            return reply
        return replace(reply, headers={**reply.headers, "Warning": '299 x "There are additional results"'})


class Reads(WebFault):
    """The targets of queries are changed by ``change`` before they are read."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self._change = change

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        read = parse_request(self._change(request.target), request.headers)
        return web.right_answer(read) if request.is_search and read is not None else None


class IgnoresSeries(WebFault):
    """Lists of a series have all instances of its study."""

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        if not request.is_search or not lists_series(request):
            return None
        query = replace(request.query, keys={**request.query.keys, "SeriesInstanceUID": ""})
        return web.right_answer(replace(request, query=query))


class BareFeeds(WebFault):
    """Bodies of retrievals whose lines end in a line feed alone; ``length`` is in the headers of each part.

    ``boundary`` is the one that the header names.
    """

    def __init__(self, *, length: bool = False, boundary: str = "x7") -> None:
        super().__init__()
        self._length = length
        self._header = f"multipart/related; boundary={boundary}"

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if request.is_search or reply.status != 200:
            return reply
        body = b""
        for file in map(file_of, web.catalogue.select(request.query)):
            body += b"--x7\n" + (b"Content-Length: %d\n" % len(file) if self._length else b"")
            body += b"\n" + file + b"\n"
        return WebResponse(200, {"Content-Type": self._header}, body + b"--x7--\n")


class Body(WebFault):
    """The bodies of searches changed; ``content_type`` is declared."""

    def __init__(self, change: Callable[[bytes], bytes], content_type: str = JSON) -> None:
        super().__init__()
        self._change = change
        self._content_type = content_type

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not request.is_search or reply.status != 200:
            return reply
        return WebResponse(200, {"Content-Type": self._content_type}, self._change(reply.body))


class LimitRefused(WebFault):
    """A limit above ``largest`` is refused, and the absence of one as well."""

    def __init__(self, largest: int, status: int = 400, text: bytes = b"") -> None:
        super().__init__()
        self._largest = largest
        self._refusal = WebResponse(status, {"Content-Type": "text/plain"}, text)

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        is_refused = request.is_search and (request.limit or self._largest + 1) > self._largest
        return self._refusal if is_refused else None


class NoCounts(WebFault):
    """Answers to queries without the numbers of related series and instances."""

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not request.is_search or not reply.body.startswith(b"["):
            return reply
        rows = [
            {key: value for key, value in row.items() if key not in ("00201206", "00201208", "00201209")}
            for row in json.loads(reply.body)
        ]
        return replace(reply, body=json.dumps(rows).encode())


class Rows(WebFault):
    """Answers to queries changed, row by row or altogether."""

    def __init__(
        self, change: Callable[[list[dict[str, object]]], object], *, times: int | None = None
    ) -> None:
        super().__init__(times=times)
        self._change = change

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not request.is_search or reply.status != 200 or not self.strikes():
            return reply
        changed = self._change(json.loads(reply.body))
        return WebResponse(200, {"Content-Type": JSON}, json.dumps(changed).encode())


class Guarded(WebFault):
    """Who does not show one of the ``tokens`` is not let in; each is good for ``uses`` requests."""

    def __init__(self, *tokens: str, uses: int = 1_000_000) -> None:
        super().__init__()
        self._good = dict.fromkeys(tokens, uses)

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._good.get(token, 0) <= 0:
            return WebResponse(401, {"WWW-Authenticate": "Bearer"})
        self._good[token] -= 1
        return None


class Parts(WebFault):
    """The parts of retrievals changed: ``change`` gets the files and gives what is sent instead."""

    def __init__(
        self, change: Callable[[ScriptedWeb, list[bytes]], list[bytes]], *, which: Which = retrievals
    ) -> None:
        super().__init__()
        self._change = change
        self._which = which

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if not self._which(request) or reply.status != 200:
            return reply
        files = [file_of(instance) for instance in web.catalogue.select(request.query)]
        parts = [f"--{BOUNDARY}\r\n\r\n".encode() + part + b"\r\n" for part in self._change(web, files)]
        return WebResponse(200, {"Content-Type": MULTIPART}, b"".join(parts) + f"--{BOUNDARY}--".encode())


def file_of(instance: DemoInstance) -> bytes:
    """The DICOM file that is sent of an instance."""
    whole = b"".join(encode_multipart([instance]))
    return whole[whole.index(b"\r\n\r\n") + 4 :].removesuffix(f"\r\n--{BOUNDARY}--\r\n".encode())


class Dribble(WebFault):
    """The first bytes of a retrieval, then one every now and then, without an end."""

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if request.is_search or not self.strikes():
            return reply

        def slowly() -> Iterator[bytes | memoryview]:
            assert reply.chunks is not None
            for piece in reply.chunks:
                for number in range(len(piece)):
                    yield bytes(piece[number : number + 1])
                    if web.stopped.wait(0.02):
                        raise CloseConnection

        return replace(reply, chunks=slowly())


class Silent(WebFault):
    """Nothing at all, until the server stops."""

    def __init__(self, which: Which = retrievals, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._which = which

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        if self._which(request) and self.strikes():
            web.stopped.wait(60)
        return None
