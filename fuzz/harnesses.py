"""One function for each way in; all take any bytes, and fail by an exception.

The first byte of an input is often the split: into which reads the rest is cut (``peers.sizes``). Nothing but
a ``ProtocolError`` may come out, nothing may grow, and the split may not change what is understood.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from itertools import accumulate, takewhile

from tests.cohort import workbooks

from dicom_quarry.archive.dicomweb.json_model import parse_datasets
from dicom_quarry.archive.dicomweb.multipart import MultipartReader
from dicom_quarry.cohort.xlsx_reader import read_records
from dicom_quarry.errors import ProtocolError, RemoteProtocolError
from dicom_quarry.wire import dimse, negotiation
from dicom_quarry.wire.header_scan import SCAN_TO_END, HeaderScan
from dicom_quarry.wire.negotiation import AcceptorPolicy
from dicom_quarry.wire.pdu import PduReader
from fuzz import framing, peers
from fuzz.dialogue import conversation

Harness = Callable[[bytes], None]

SYNTAXES = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.4.70",
    "",
)
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.205")
_COMPRESS = 0x80
_LONGEST_VALUE = 1 << 16
_WORKBOOK = workbooks.workbook(("S", workbooks.sheet([[workbooks.text("EMPI")], [workbooks.text("1")]])))
_LONGEST_HEADERS = _LONGEST_READ = 1 << 17


def acceptor(data: bytes) -> None:
    """A sender's bytes into the receiver's session."""
    _accept(data[1:], data[0] if data else 0)


def requestor(data: bytes) -> None:
    """An archive's bytes into an association that we requested; the second byte is the number of
    messages after which it is released."""
    _request(data[2:], *data[:2]) if len(data) > 2 else None


def dialogue(data: bytes) -> None:
    """The input as a script of PDUs and of damage to them, into either side."""
    if len(data) < 3:
        return
    stream, seed = conversation(data[3:]), data[0]
    if seed == 1:  # byte by byte is slow; the harnesses above do it
        seed = 2
    if data[1] & 1:
        _request(stream, seed, data[2])
    else:
        _accept(stream, seed)


def _accept(stream: bytes, seed: int) -> None:
    whole = peers.accept(stream, 0)
    if seed:
        assert peers.accept(stream, seed) == whole, "the split changes what a sender sent"


def _request(stream: bytes, seed: int, max_messages: int) -> None:
    _, whole = peers.request(stream, 0, max_messages)
    _, pieces = peers.request(stream, seed, max_messages)
    # What breaks the protocol costs what came in the same read: only a prefix can be compared.
    short = min(len(whole), len(pieces))
    assert whole[:short] == pieces[:short], "the split changes what an archive sent"


def command(data: bytes) -> None:
    """A command set."""
    try:
        read = dimse.decode(data)
    except RemoteProtocolError:
        return
    assert framing.tiles(data, "<4xL"), "a command set was taken whose elements do not fill it"
    again = dimse.decode(dimse.encode(read))
    assert dimse.encode(again) == dimse.encode(read)
    assert len(dimse.encode(dimse.response(read, 0xA700, read.error_comment))) < len(data) + 200


def items(data: bytes) -> None:
    """The items of an A-ASSOCIATE-RQ and of an A-ASSOCIATE-AC; what we answer is read back."""
    body = bytes((0, 1, 0, 0)) + data[-16:].ljust(16) + bytes(48) + data  # it also ends up as a title
    try:
        request = negotiation.decode_request(body)
    except RemoteProtocolError:
        pass
    else:
        assert framing.tiles(data, ">2xH"), "a request was taken whose items do not fill it"
        shown = (request.called, request.calling, request.implementation_uid, request.implementation_version)
        assert "".join(shown).isprintable(), "a peer's escape sequences would reach the terminal"
        accept = AcceptorPolicy(peers.MAX_PDU).answer(request)
        read = negotiation.decode_accept(negotiation.encode_accept(accept))
        kept = [(answer.context_id, answer.result) for answer in read.results]
        assert kept == [(answer.context_id, answer.result) for answer in accept.results]
        assert [context.context_id for context in request.contexts] == [context_id for context_id, _ in kept]
        assert read.roles == accept.roles
    try:
        negotiation.accepted_contexts(peers.REQUEST, negotiation.decode_accept(body))
    except RemoteProtocolError:
        pass


def pdus(data: bytes) -> None:
    """The stream of PDUs, read by a reader that has the whole of it before its eyes, too."""
    stream, seed = data[1:], data[0] if data else 0
    reader = PduReader(peers.MAX_PDU)
    units: list[framing.Unit] = []
    begin = 0
    try:
        for size in peers.sizes(seed, len(stream)):
            if begin >= len(stream):
                break
            piece = stream[begin : begin + size]
            begin += size
            reader.get_buffer()[: len(piece)] = piece
            reader.buffer_updated(len(piece))
            units += map(framing.unit, reader.units())
    except RemoteProtocolError:
        units.append(framing.DAMAGED)
    assert framing.joined(units) == framing.joined(framing.read(stream)), "PDUs are not read as they are"


def header(data: bytes) -> None:
    """A dataset: transfer syntax (with the high bit: to be deflated first), split, then the bytes."""
    if len(data) < 2:
        return
    syntax, dataset = SYNTAXES[(data[0] & 0x3F) % len(SYNTAXES)], data[2:]
    if data[0] & _COMPRESS:
        deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        dataset = deflate.compress(dataset) + deflate.flush()
    tags = peers.TAGS | {SCAN_TO_END} if data[0] & 0x40 else peers.TAGS
    whole, pieces = _scanned(dataset, syntax, tags, 0), _scanned(dataset, syntax, tags, data[1])
    if whole != pieces:
        # zlib gives nothing of a piece that is damaged, so what comes before may be read or not.
        damaged = syntax in _DEFLATED and _is_damaged(dataset)
        assert damaged and None in (whole, pieces), "the split changes the header"


def _is_damaged(deflated: bytes) -> bool:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while deflated and not inflate.eof:
            inflate.decompress(deflated, 1 << 20)
            deflated = inflate.unconsumed_tail
    except zlib.error:
        return True
    return False


def _scanned(data: bytes, syntax: str, tags: frozenset[int], seed: int) -> dict[int, str] | None:
    """The values; None for a dataset that is refused."""
    scan = HeaderScan(syntax, tags)
    ends = takewhile(lambda end: end < len(data), accumulate(peers.sizes(seed, len(data))))
    begin = 0
    try:
        for end in (*ends, len(data)):
            scan.feed(memoryview(data)[begin:end])
            assert len(scan._carry) < _LONGEST_VALUE + 16
            begin = end
        scan.end()
    except RemoteProtocolError:
        return None
    assert scan.is_done
    assert set(scan.values) <= tags
    return scan.values


def multipart(data: bytes) -> None:
    """A body of multipart/related with the boundary ``b``: split, then the bytes."""
    if data:
        assert _parts(data[1:], data[0]) == _parts(data[1:], 0), "the split changes the parts"


def _parts(body: bytes, seed: int) -> tuple[list[object], bool]:
    """The parts, contents joined, and whether the body was closed; up to where it is refused."""
    reader, parts = MultipartReader("b"), list[object]()
    ends = takewhile(lambda end: end < len(body), accumulate(peers.sizes(seed, len(body))))
    begin = 0
    try:
        for end in (*ends, len(body)):
            for event in reader.feed(body[begin:end]):
                if isinstance(event, memoryview) and isinstance(parts[-1], bytes):
                    parts[-1] += event
                else:
                    parts.append(bytes(event) if isinstance(event, memoryview) else event)
            assert reader.kept <= _LONGEST_HEADERS + _LONGEST_READ
            begin = end
    except RemoteProtocolError:
        return [], False
    return parts, reader.closed


#: The parts of a workbook of which an input replaces one.
PARTS = (
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "xl/styles.xml",
    "xl/workbook.xml",
    "xl/_rels/workbook.xml.rels",
    "_rels/.rels",
)


def workbook(data: bytes) -> None:
    """A part of a workbook, or the whole file: which one, then the bytes."""
    if not data:
        return
    content = io.BytesIO(data[1:])
    if data[0] % 8 < len(PARTS):
        content = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(_WORKBOOK)) as whole, zipfile.ZipFile(content, "w") as changed:
            for name in whole.namelist():
                changed.writestr(name, data[1:] if name == PARTS[data[0] % 8] else whole.read(name))
    records = list(read_records(content, "skip" if data[0] & 0x40 else ""))
    assert json.loads(json.dumps(records)) == records
    assert isinstance(records[-1], dict) and len(records[-1]) == 1, "the last record is not an end"
    lines = [record[0] for record in records if isinstance(record, list)]
    assert lines == sorted(set(lines)), "rows are out of order"


_CHARSETS = ("", "utf-8", "utf-16", "latin-1", "shift_jis", "x")


def datasets(data: bytes) -> None:
    """A page of results in JSON: how its bytes are declared, then the bytes."""
    if not data:
        return
    tags = frozenset(peers.TAGS)
    try:
        rows = parse_datasets(data[1:], tags, _CHARSETS[data[0] % len(_CHARSETS)])
    except RemoteProtocolError:
        return
    for row in rows:
        assert row.keys() <= tags
        "".join(row.values()).encode()


def strict(harness: Harness) -> Harness:
    """Warnings are errors: with a peer's words in it one reaches the terminal, and is remembered for ever."""

    def checked(data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                harness(data)
            except ProtocolError as error:
                raise AssertionError(f"a ProtocolError came out of a harness: {error}") from error

    return checked


HARNESSES: Mapping[str, Harness] = {
    one.__name__: strict(one)
    for one in (acceptor, requestor, pdus, header, command, items, dialogue, multipart, workbook, datasets)
}
