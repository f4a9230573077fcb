"""Searches of QIDO-RS: their paths, keys and attributes (PS3.18 10.6.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from dicom_quarry.archive.dimse.identifier import is_uid, tag
from dicom_quarry.errors import LocalProtocolError
from dicom_quarry.model import Level
from dicom_quarry.wire.data_dictionary import vr_of_tag

#: Attributes that are always returned by the services (PS3.18 tables 10.6.3-3 to 10.6.3-5).
_DEFAULT_ATTRIBUTES = {
    Level.STUDY: {
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "InstanceAvailability",
        "ModalitiesInStudy",
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyID",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    },
    Level.SERIES: {
        "Modality",
        "SeriesDescription",
        "SeriesInstanceUID",
        "SeriesNumber",
        "NumberOfSeriesRelatedInstances",
    },
    Level.IMAGE: {"SOPClassUID", "SOPInstanceUID", "InstanceNumber", "SeriesInstanceUID"},
}

UNIQUE_KEYS = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search: its path, the values of its keys, other parameters, and the tags to return."""

    level: Level
    path: str
    keys: list[tuple[str, str]]
    parameters: list[tuple[str, str]]
    tags: list[int]


def build_search(level: Level, keys: Mapping[str, str], returns: Sequence[str]) -> SearchRequest:
    """Return path and query of a search (PS3.18 10.6.1.1): studies by keys, the rest by path."""
    remaining = {keyword: text for keyword, text in keys.items() if text}
    path = "/studies"
    if level is not Level.STUDY:
        path += f"/{quote_uid(remaining.pop('StudyInstanceUID'))}"
        if level is Level.IMAGE and "SeriesInstanceUID" in remaining:
            path += f"/series/{quote_uid(remaining.pop('SeriesInstanceUID'))}"
        path += "/series" if level is Level.SERIES else "/instances"
    values = [(keyword, _format_value(keyword, text)) for keyword, text in remaining.items()]
    included = [
        ("includefield", keyword)
        for keyword in returns
        if keyword not in _DEFAULT_ATTRIBUTES[level] | keys.keys()
    ]
    return SearchRequest(level, path, values, included, [tag(keyword) for keyword in returns])


def quote_uid(uid: str) -> str:
    """Return a UID as one segment of a path; raises LocalProtocolError where it does not name one object."""
    if not is_uid(uid):
        raise LocalProtocolError(f"a request for {uid!r}, which does not name one object")
    return quote(uid, safe="") if uid.strip(".") else "%2E" * len(uid)


def _format_value(keyword: str, text: str) -> str:
    """Return a key's value: a list of UIDs is separated by commas (PS3.18 8.3.4.1)."""
    return text.replace("\\", ",") if vr_of_tag(tag(keyword)) == "UI" else text
