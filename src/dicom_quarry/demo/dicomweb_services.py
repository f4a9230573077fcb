"""QIDO-RS and WADO-RS over synthetic studies (PS3.18 10.4, 10.6): requests in, replies out, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from dicom_quarry.demo.query_matching import Catalogue, Query, Record
from dicom_quarry.demo.synthetic_instances import dataset
from dicom_quarry.demo.synthetic_studies import Instance
from dicom_quarry.model import Arrival, Level
from dicom_quarry.store.part10 import file_head

#: Where the services begin.
ROOT = "/dicom-web"

BOUNDARY = "quarry-demo"
JSON, MULTIPART = (
    "application/dicom+json",
    f'multipart/related; type="application/dicom"; boundary={BOUNDARY}',
)

#: What every answer has (PS3.18 tables 10.6.3-3 to 10.6.3-5), as far as the demo knows it.
_RETURNED = {
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
_UNIQUE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LEVELS = (Level.STUDY, Level.SERIES, Level.IMAGE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for one resource: a search at a level, or a retrieval of what ``keys`` name."""

    search: bool
    query: Query
    limit: int | None = None
    offset: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. A body in ``pieces`` is sent in chunks; it may raise :class:`HangUp`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: Iterable[bytes | memoryview] | None = None


class HangUp(Exception):
    """Close the connection in the middle of what is being said."""


def understand(target: str, headers: Mapping[str, str]) -> Asked | None:
    """A request's target (PS3.18 tables 10.4.1-1 and 10.6.1-1); None for what is no such resource."""
    parts = urlsplit(target)
    if not parts.path.startswith(f"{ROOT}/"):
        return None
    steps = [unquote(step) for step in parts.path.removeprefix(f"{ROOT}/").split("/")]
    names, uids = steps[0::2], steps[1::2]
    depth = [_COLLECTIONS.index(name) for name in names if name in _COLLECTIONS]
    if len(depth) != len(names) or depth != sorted(set(depth)) or len(uids) < len(names) - 1:
        return None
    keys: Record = {_UNIQUE[level]: uid for level, uid in zip(depth, uids, strict=False)}
    level = _LEVELS[depth[-1]]
    if len(uids) == len(names):
        return Asked(False, Query(level, keys), headers=headers)
    given = parse_qsl(parts.query, keep_blank_values=True)
    keys |= dict.fromkeys((*_RETURNED[level], *_UNIQUE[: depth[-1]]), "")
    keys |= {_keyword(name): "" for key, name in given if key == "includefield"}
    keys |= {_UNIQUE[level]: uid for level, uid in zip(depth, uids, strict=False)}
    pages = {key: int(value) for key, value in given if key in ("limit", "offset") and value.isdigit()}
    for key, value in given:
        if key not in ("includefield", "limit", "offset", "fuzzymatching"):
            keys[_keyword(key)] = value.replace(",", "\\") if key.endswith("UID") else value
    return Asked(True, Query(level, keys), pages.get("limit"), pages.get("offset", 0), headers)


def _keyword(name: str) -> str:
    """Attributes are named by keyword, or by tag in hexadecimal (PS3.18 8.3.4.1)."""
    return keyword_for_tag(int(name, 16)) if len(name) == 8 and name.isalnum() and name[0].isdigit() else name


def search(catalogue: Catalogue, asked: Asked) -> Reply:
    """QIDO-RS: one page of the answers."""
    found = list(catalogue.find(asked.query))
    end = None if asked.limit is None else asked.offset + asked.limit
    page = found[asked.offset : end]
    if not page:
        return Reply(204)
    return Reply(200, {"Content-Type": JSON}, json.dumps([written(record) for record in page]).encode())


def written(record: Record) -> dict[str, Any]:
    """A record in the DICOM JSON Model (PS3.18 F.2)."""
    dataset: dict[str, Any] = {}
    for keyword, text in record.items():
        tag = tag_for_keyword(keyword)
        if tag is None:
            continue
        vr = dictionary_VR(tag)[:2]
        dataset[f"{tag:08X}"] = {"vr": vr}
        if text:
            dataset[f"{tag:08X}"]["Value"] = [_value(vr, value) for value in text.split("\\")]
    return dataset


def _value(vr: str, text: str) -> Any:
    if vr == "PN":
        return {"Alphabetic": text}
    return int(text) if vr in ("IS", "US", "UL") and text.isdigit() else text


def retrieve(catalogue: Catalogue, asked: Asked) -> Reply:
    """WADO-RS: every instance as a file, in its own transfer syntax."""
    instances = catalogue.select(asked.query)
    if not instances:
        return Reply(404)
    return Reply(200, {"Content-Type": MULTIPART}, pieces=body_of(instances))


def body_of(instances: Sequence[Instance]) -> Iterator[bytes | memoryview]:
    """A multipart body, made on the way."""
    for instance in instances:
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield file_head(Arrival(instance.sop_class, instance.sop_uid, instance.series.kind.syntax))
        yield from dataset(instance)
        yield b"\r\n"
    yield f"--{BOUNDARY}--\r\n".encode()
