"""An archive with one study of any size over DICOMweb, made while it is sent: it takes no memory or disk.

python -m bench.large_archive PORT SERIES INSTANCES PIXEL-BYTES
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pydicom
from tests.peers.corpus import CT, study_files

STUDY = "1.2.826.0.1.3680043.8.498.9.1000000"
_BLOCK = bytes(1 << 20)
_PART = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
_END = b"--part--\r\n"
_JSON = "application/dicom+json"
_PARTS = 'multipart/related; type="application/dicom"; boundary=part'


def series_uid(number: int) -> str:
    return f"{STUDY}.{1_000_000 + number}"


class Content:
    """The study: its answers to queries, and its instances as pieces of bytes."""

    def __init__(self, series: int, instances: int, pixel_bytes: int) -> None:
        self.series, self.instances, self.pixel_bytes = series, instances, pixel_bytes
        self.head = self._head()

    def _head(self) -> bytes:
        """A file up to the value of its pixel data, with the first UIDs."""
        (file,) = study_files("LARGE", "LARGE", series=1, instances=1, pixel_bytes=2)
        ds = pydicom.dcmread(BytesIO(file))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY, series_uid(0)
        ds.SOPInstanceUID = f"{series_uid(0)}.1000000"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        stream = BytesIO()
        ds.save_as(stream)
        return stream.getvalue()[:-6] + self.pixel_bytes.to_bytes(4, "little")

    def uids(self) -> Iterator[tuple[str, str]]:
        for series in range(self.series):
            for number in range(self.instances):
                yield series_uid(series), f"{series_uid(series)}.{1_000_000 + number}"

    @property
    def body_size(self) -> int:
        each = len(_PART) + len(self.head) + self.pixel_bytes + 2
        return self.series * self.instances * each + len(_END)

    def body(self) -> Iterator[bytes]:
        first_series, first = series_uid(0).encode(), f"{series_uid(0)}.1000000".encode()
        for series, uid in self.uids():
            head = self.head.replace(first, b"\xff").replace(first_series, series.encode())
            yield _PART + head.replace(b"\xff", uid.encode())
            for start in range(0, self.pixel_bytes, len(_BLOCK)):
                yield _BLOCK[: self.pixel_bytes - start]
            yield b"\r\n"
        yield _END

    def answers(self, path: str, keys: dict[str, list[str]]) -> list[dict[str, object]]:
        if STUDY not in path and STUDY not in keys.get("StudyInstanceUID", ()):
            return []
        if path.endswith("/instances"):
            only = [part for part in path.split("/") if part.startswith(f"{STUDY}.")]
            only += keys.get("SeriesInstanceUID", [])
            return [
                _dataset({0x00080016: CT, 0x00080018: uid, 0x0020000D: STUDY, 0x0020000E: series})
                for series, uid in self.uids()
                if not only or series in only
            ]
        if path.endswith("/series"):
            return [
                _dataset({0x0020000D: STUDY, 0x0020000E: series_uid(one), 0x00201209: self.instances})
                for one in range(self.series)
            ]
        counts = {0x00201206: self.series, 0x00201208: self.series * self.instances}
        return [_dataset({0x00100020: "LARGE", 0x00080050: "LARGE", 0x0020000D: STUDY, **counts})]


def _dataset(values: dict[int, object]) -> dict[str, object]:
    return {
        f"{tag:08X}": {"vr": "IS" if isinstance(one, int) else "UI", "Value": [one]}
        for tag, one in values.items()
    }


def handler(content: Content) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.endswith(f"/studies/{STUDY}"):
                self._begin(_PARTS, content.body_size)
                for piece in content.body():
                    self.wfile.write(piece)
                return
            keys = parse_qs(url.query)
            start = int(keys.get("offset", ["0"])[0])
            rows = content.answers(url.path, keys)[start:]
            body = json.dumps(rows[: int(keys.get("limit", [str(len(rows))])[0])]).encode()
            self._begin(_JSON, len(body))
            self.wfile.write(body)

        def _begin(self, kind: str, size: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def main(port: str, *numbers: str) -> None:
    series, instances, pixel_bytes = map(int, numbers)
    content = Content(series, instances, pixel_bytes)
    ThreadingHTTPServer(("127.0.0.1", int(port)), handler(content)).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
