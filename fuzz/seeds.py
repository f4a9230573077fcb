"""Makes the seeds of the corpus from dialogues with real peers: ``python -m fuzz.seeds``.

DCMTK's storescu, Orthanc and pynetdicom send to the receiver, DCMTK's dcmqrscp, Orthanc and pynetdicom answer
the requestor, each through a tap that keeps their bytes.
"""

from __future__ import annotations

import io
import json
import socket
import struct
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom.data
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE as Pynetdicom
from pynetdicom import evt
from tests.cohort.workbooks import DATE, EIGHT_DIGITS, error, number, shared, sheet, text, workbook
from tests.peers.dcmtk import Dcmqrscp, storescu
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port
from tests.receiver.helpers import MemorySink

from dicom_quarry.errors import QuarryError
from dicom_quarry.model import AE
from dicom_quarry.receiver.server import Receiver
from dicom_quarry.wire import dimse
from dicom_quarry.wire.dimse import VERIFICATION
from dicom_quarry.wire.pdu import ControlPdu, PduReader, PduType
from dicom_quarry.wire.requestor import Requestor
from fuzz import peers
from fuzz.harnesses import PARTS, SYNTAXES
from fuzz.run import CORPUS

_FILES = Path(pydicom.data.__file__).parent
_SENT = tuple(_FILES / "test_files" / name for name in ("rtplan.dcm", "SC_rgb_small_odd.dcm"))
_HEADER_SIZE = 1500  # beyond the identifiers of all test files
_SMALL = 6000


def keep(harness: str, name: str, data: bytes) -> None:
    """Write one seed."""
    folder = CORPUS / harness
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


class Tap:
    """Forwards one connection after the other, and keeps the bytes of each side."""

    def __init__(self, target: AE) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.ae = AE(target.title, "127.0.0.1", self._server.getsockname()[1])
        self.connections: list[tuple[bytearray, bytearray]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            target = socket.create_connection((self._target.host, self._target.port))
            self.connections.append((bytearray(), bytearray()))
            requests, responses = self.connections[-1]
            for source, sink, kept in ((client, target, requests), (target, client, responses)):
                threading.Thread(target=_copy, args=(source, sink, kept), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65536):
            kept += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def _send_by_pynetdicom(target: AE) -> None:
    ae = Pynetdicom("PYNETDICOM")
    instance = dcmread(_SENT[0])
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(instance.SOPClassUID)
    association = ae.associate(target.host, target.port, ae_title=target.title)
    association.send_c_echo()
    association.send_c_store(instance)
    association.release()


def _send_by_orthanc(folder: Path) -> Callable[[AE], None]:
    def send(target: AE) -> None:
        with Orthanc(folder / "orthanc-sends", destinations=[target]) as orthanc:
            orthanc.load(_SENT)
            found = json.dumps(orthanc.get("/instances")).encode()
            orthanc.request("POST", f"/modalities/{target.title}/store", found)

    return send


def senders(folder: Path) -> None:
    """Seeds of the acceptor: a sender's bytes."""
    ways = {
        "storescu": lambda target: storescu(_SENT, target),
        "pynetdicom": _send_by_pynetdicom,
        "orthanc": _send_by_orthanc(folder),
    }
    for name, send in ways.items():
        receiver = Receiver(AE("QUARRY", "127.0.0.1", 0), MemorySink())
        receiver.start()
        tap = Tap(AE("QUARRY", "127.0.0.1", receiver.port))
        send(tap.ae)
        receiver.stop(2.0)
        for at, (requests, responses) in enumerate(tap.connections):
            keep("acceptor", f"{name}-{at}", b"\0" + requests)
            parts(f"{name}-{at}", bytes(requests), bytes(responses))


@contextmanager
def _pynetdicom_archive() -> Iterator[AE]:
    instance = dcmread(_SENT[0])

    def find(event: evt.Event) -> Iterator[tuple[int, object]]:
        answer = event.identifier
        answer.PatientID = instance.PatientID
        yield 0xFF00, answer

    ae = Pynetdicom("PYNETDICOM")
    ae.add_supported_context(VERIFICATION)
    ae.add_supported_context(peers.FIND)
    port = free_port()
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    yield AE("PYNETDICOM", "127.0.0.1", port)
    ae.shutdown()


def _ask(archive: AE) -> None:
    contexts = [(context.abstract_syntax, context.transfer_syntaxes) for context in peers.REQUEST.contexts]
    try:
        requestor = Requestor.connect(archive, calling="QUARRY", contexts=contexts)
    except QuarryError:
        return  # a rejection is a seed, too
    context_id, syntax = requestor.accepted[peers.FIND]
    form = "<HHL" if syntax == peers.IMPLICIT else "<HH2sH"
    identifier = b"".join(
        struct.pack(form, *tag, *(() if form == "<HHL" else (vr,)), len(value)) + value
        for tag, vr, value in (
            ((0x0008, 0x0052), b"CS", b"STUDY "),
            ((0x0010, 0x0020), b"LO", b""),
            ((0x0020, 0x000D), b"UI", b""),
        )
    )
    requestor.send(dimse.c_echo_rq(1), context_id=requestor.accepted[VERIFICATION][0])
    requestor.receive(10)
    requestor.send(dimse.c_find_rq(2, peers.FIND), identifier, context_id=context_id)
    while (message := requestor.receive(10)) and message.command.has_dataset:
        pass
    requestor.release()


def archives(folder: Path) -> None:
    """Seeds of the requestor: an archive's bytes."""
    with Orthanc(folder / "orthanc") as orthanc, Dcmqrscp(folder / "dcmtk") as dcmtk:
        orthanc.load(_SENT)
        dcmtk.load(_SENT)
        with _pynetdicom_archive() as pynetdicom:
            for name, archive in {
                "orthanc": orthanc.ae,
                "dcmqrscp": dcmtk.ae,
                "pynetdicom": pynetdicom,
                "rejected": AE("NOBODY", dcmtk.ae.host, dcmtk.ae.port),
            }.items():
                tap = Tap(archive)
                _ask(tap.ae)
                requests, responses = tap.connections[0]
                keep("requestor", name, b"\0\x09" + responses)
                parts(f"find-{name}", bytes(requests), bytes(responses))


def parts(name: str, *streams: bytes) -> None:
    """Seeds of the smaller harnesses: association items, and command sets of every kind."""
    command = bytearray()
    for stream in streams:
        reader = PduReader(0)
        reader.get_buffer()[: len(stream)] = stream
        reader.buffer_updated(len(stream))
        for unit in reader.units():
            if isinstance(unit, ControlPdu):
                if unit.type in (PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC):
                    keep("items", f"{name}-{unit.type.name[-2:].lower()}", unit.body[68:])
            elif unit.is_command:
                command += unit.data
                if unit.is_last:
                    keep("command", f"{name}-{dimse.decode(command).field.name.lower()}", bytes(command))
                    command.clear()


def headers() -> None:
    """Seeds of the header scan: the beginnings of small test files of pydicom's."""
    for path in sorted((*_FILES.glob("test_files/*.dcm"), *_FILES.glob("charset_files/*.dcm"))):
        with path.open("rb") as file:
            if _is_dull(path) or file.read(132)[128:] != b"DICM":
                continue
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", peers.EXPLICIT))
            file.seek(144 + int(read_file_meta_info(path).get("FileMetaInformationGroupLength", 0)))
            size = -1 if syntax == peers.DEFLATED else _HEADER_SIZE
            keep("header", path.stem, bytes((_form(syntax), 3)) + file.read(size))


def _is_dull(path: Path) -> bool:
    """Large, or one of many secondary captures that differ in their pixels only."""
    return path.stat().st_size > _SMALL or (path.name.startswith("SC_") and "small_odd" not in path.name)


def _form(syntax: str) -> int:
    return SYNTAXES.index(syntax) if syntax in SYNTAXES else 1


def tables() -> None:
    """Seeds of the workbook reader: its parts, with cells of every kind, and the file."""
    cells = [text("P\u00e9"), number("43304.5", DATE), number("7", EIGHT_DIGITS), shared(0), error("#N/A")]
    rows = sheet([[text("EMPI"), *[text(one) for one in "ABCD"]], cells])
    book = workbook(("S", rows), ("Old", rows), strings=["<t>a_x0031_</t>"], hidden=["Old"])
    keep("workbook", "file", b"\7" + book)
    with zipfile.ZipFile(io.BytesIO(book)) as parts_of_it:
        for at, name in enumerate(PARTS):
            keep("workbook", Path(name).name.strip("."), bytes((at,)) + parts_of_it.read(name))
    layout = '<cols><col min="1" max="2" hidden="1"/></cols><mergeCells><mergeCell ref="A2:B4"/></mergeCells>'
    part = f"<worksheet><sheetData>{rows}</sheetData>{layout}</worksheet>"
    keep("workbook", "layout", b"\0" + part.encode())


def results() -> None:
    """Seeds of the reader of DICOM JSON."""
    one = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "\u738b"}]},
        "00100020": {"vr": "LO", "Value": ["4711", None]},
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00081140": {"vr": "SQ", "Value": [{"00100020": {"vr": "LO"}}]},
        "00201208": {"vr": "IS", "Value": [7, 1.0, 1e300]},
    }
    keep("datasets", "standard", b"\0" + json.dumps([one, {}]).encode())
    keep("datasets", "one", b"\4" + json.dumps(one, ensure_ascii=False).encode())
    keep("datasets", "utf-16", b"\2" + json.dumps([{"PatientID": "4711"}]).encode("utf-16"))


def main() -> None:
    """Write all of them."""
    headers()
    tables()
    results()
    with tempfile.TemporaryDirectory() as folder:
        senders(Path(folder))
        archives(Path(folder))


if __name__ == "__main__":
    main()
