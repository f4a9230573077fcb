"""QIDO-RS and WADO-RS over synthetic studies (PS3.18 10.4, 10.6): requests in, responses out, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicom_quarry.demo.query_matching import Catalogue, QueryIdentifier, Record
from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import DemoInstance
from dicom_quarry.model import InstanceInfo, Level
from dicom_quarry.store.part10 import encode_file_head

#: The path of the services.
BASE_PATH = "/dicom-web"

BOUNDARY = "quarry-demo"
JSON, MULTIPART = (
    "application/dicom+json",
    f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
)

#: Attributes of every result (PS3.18 tables 10.6.3-3 to 10.6.3-5) that the demo studies have.
_DEFAULT_ATTRIBUTES = {
    Level.STUDY: (
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "InstanceAvailability",
        "ModalitiesInStudy",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ),
    Level.SERIES: ("Modality", "SeriesDescription", "SeriesNumber", "NumberOfSeriesRelatedInstances"),
    Level.IMAGE: ("SOPClassUID", "InstanceNumber"),
}

_COLLECTIONS = ("studies", "series", "instances")
_UNIQUE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LEVELS = (Level.STUDY, Level.SERIES, Level.IMAGE)


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request for one resource: a search at a level, or a retrieval of what its keys name.

    ``target`` is the path with the query, as it was sent.
    """

    is_search: bool
    query: QueryIdentifier
    limit: int | None = None
    offset: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True, slots=True)
class WebResponse:
    """A response. A body with ``chunks`` is sent chunked; its iterator may raise :class:`CloseConnection`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: Iterable[bytes | memoryview] | None = None


class CloseConnection(Exception):
    """Raised to close the connection in the middle of a response."""


def parse_request(target: str, headers: Mapping[str, str]) -> WebRequest | None:
    """Parse a request's target (PS3.18 tables 10.4.1-1 and 10.6.1-1); None if it is no such resource."""
    parts = urlsplit(target)
    if not parts.path.startswith(f"{BASE_PATH}/"):
        return None
    segments = [unquote(step) for step in parts.path.removeprefix(f"{BASE_PATH}/").split("/")]
    names, uids = segments[0::2], segments[1::2]
    depth = [_COLLECTIONS.index(name) for name in names if name in _COLLECTIONS]
    if len(depth) != len(names) or depth != sorted(set(depth)) or len(uids) < len(names) - 1:
        return None
    keys: Record = {_UNIQUE_KEYS[level]: uid for level, uid in zip(depth, uids, strict=False)}
    level = _LEVELS[depth[-1]]
    if len(uids) == len(names):
        return WebRequest(False, QueryIdentifier(level, keys), headers=headers, target=target)
    given = parse_qsl(parts.query, keep_blank_values=True)
    keys |= dict.fromkeys((*_DEFAULT_ATTRIBUTES[level], *_UNIQUE_KEYS[: depth[-1]]), "")
    keys |= {_keyword(name): "" for key, name in given if key == "includefield"}
    keys |= {_UNIQUE_KEYS[level]: uid for level, uid in zip(depth, uids, strict=False)}
    pages = {key: int(value) for key, value in given if key in ("limit", "offset") and value.isdigit()}
    for key, value in given:
        if key not in ("includefield", "limit", "offset", "fuzzymatching"):
            keys[_keyword(key)] = value.replace(",", "\\") if key.endswith("UID") else value
    query = QueryIdentifier(level, keys)
    return WebRequest(True, query, pages.get("limit"), pages.get("offset", 0), headers, target)


def _keyword(name: str) -> str:
    """Return the keyword of an attribute named by keyword or hexadecimal tag (PS3.18 8.3.4.1)."""
    return keyword_for_tag(int(name, 16)) if len(name) == 8 and name.isalnum() and name[0].isdigit() else name


def search(catalogue: Catalogue, request: WebRequest) -> WebResponse:
    """Answer QIDO-RS with one page of results."""
    found = list(catalogue.find(request.query))
    end = None if request.limit is None else request.offset + request.limit
    page = found[request.offset : end]
    if not page:
        return WebResponse(204)
    return WebResponse(
        200, {"Content-Type": JSON}, json.dumps([to_dicom_json(record) for record in page]).encode()
    )


def to_dicom_json(record: Record) -> dict[str, Any]:
    """Return a record in the DICOM JSON Model (PS3.18 F.2)."""
    attributes: dict[str, Any] = {}
    for keyword, text in record.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            continue
        vr = dictionary_VR(tag)[:2]
        attributes[f"{tag:08X}"] = {"vr": vr}
        if text:
            attributes[f"{tag:08X}"]["Value"] = [_json_value(vr, value) for value in text.split("\\")]
    return attributes


def _json_value(vr: str, text: str) -> Any:
    if vr == "PN":
        return {"Alphabetic": text}
    return int(text) if vr in ("IS", "US", "UL") and text.isdigit() else text


def retrieve(catalogue: Catalogue, request: WebRequest) -> WebResponse:
    """Answer WADO-RS with every instance as a file, in its own transfer syntax."""
    instances = catalogue.select(request.query)
    if not instances:
        return WebResponse(404)
    return WebResponse(200, {"Content-Type": MULTIPART}, chunks=encode_multipart(instances))


def encode_multipart(instances: Sequence[DemoInstance]) -> Iterator[bytes | memoryview]:
    """Encode a multipart body while it is sent."""
    for instance in instances:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield encode_file_head(
            InstanceInfo(instance.sop_class, instance.sop_uid, instance.series.profile.syntax)
        )
        yield from encode_dataset(instance)
        yield b"\r\n"
    yield f"--{BOUNDARY}--\r\n".encode()
