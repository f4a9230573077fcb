"""Attribute matching of C-FIND over synthetic studies, pure (PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_VR

from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoSeries, DemoStudy
from dicom_quarry.model import Level

#: A query result, or one level's part of it: values by DICOM keyword, several separated by backslashes.
Record = dict[str, str]

_RANGE_VRS = frozenset({"DA", "TM", "DT"})
_NO_WILDCARD_VRS = frozenset({"UI", "IS", "DS", "US", "UL"})  # PS3.4 C.2.2.2.4
_UNIQUE_KEYS = {
    "PATIENT": ("PatientID",),
    "STUDY": ("PatientID", "StudyInstanceUID"),
    "SERIES": ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    "IMAGE": ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}


@dataclass(frozen=True, slots=True)
class QueryIdentifier:
    """The identifier of a C-FIND or C-MOVE: its level, and its keys by keyword."""

    level: str
    keys: Mapping[str, str]

    def values(self, keyword: str) -> tuple[str, ...]:
        """Return the values of one key; none where it is absent or empty."""
        return tuple(
            value.strip(" \0") for value in self.keys.get(keyword, "").split("\\") if value.strip(" \0")
        )


class Catalogue:
    """The studies of an archive, indexed by their keys."""

    def __init__(self, studies: Iterable[DemoStudy]) -> None:
        self.studies = tuple(studies)
        self._by_key: dict[tuple[str, str], list[DemoStudy]] = defaultdict(list)
        for study in self.studies:
            self._by_key["StudyInstanceUID", study.study_uid].append(study)
            self._by_key["PatientID", study.patient.patient_id].append(study)
            self._by_key["AccessionNumber", study.accession].append(study)

    def candidates(self, query: QueryIdentifier) -> Iterable[DemoStudy]:
        """Return studies that can match: by the first exact key, or all if there is none."""
        for keyword in ("StudyInstanceUID", "AccessionNumber", "PatientID"):
            values = query.values(keyword)
            if values and not any("*" in value or "?" in value for value in values):
                return [s for value in values for s in self._by_key.get((keyword, value), ())]
        return self.studies

    def find(self, query: QueryIdentifier) -> Iterator[Record]:
        """Return every match, with the requested and the unique keys down to the level (PS3.4 C.4.1.2.2)."""
        seen: set[str] = set()
        for record in self._records(query):
            if not _matches_keys(record, query.keys):
                continue
            if query.level == Level.PATIENT:
                if record["PatientID"] in seen:
                    continue
                seen.add(record["PatientID"])
            wanted = dict.fromkeys((*_UNIQUE_KEYS[query.level], *query.keys))
            yield {keyword: record.get(keyword, "") for keyword in wanted}

    def select(self, query: QueryIdentifier) -> list[DemoInstance]:
        """Return the instances that a C-MOVE identifier names by unique keys, each once (PS3.4 C.4.2.1.4)."""
        wanted = {keyword: set(query.values(keyword)) for keyword in _UNIQUE_KEYS[query.level]}
        series_uids = wanted.get("SeriesInstanceUID")
        sop_uids = wanted.get("SOPInstanceUID")
        return [
            instance
            for study in dict.fromkeys(self.candidates(query))
            for instance in study.instances()
            if (not series_uids or instance.series.series_uid in series_uids)
            and (not sop_uids or instance.sop_uid in sop_uids)
        ]

    def _records(self, query: QueryIdentifier) -> Iterator[Record]:
        for study in self.candidates(query):
            record = _study_record(study)
            studies = self._by_key["PatientID", study.patient.patient_id]
            record["NumberOfPatientRelatedStudies"] = str(len(studies))
            if query.level in (Level.PATIENT, Level.STUDY):
                yield record
                continue
            if not _matches_keys(record, query.keys):
                continue
            for series in study.series:
                below = record | _series_record(series)
                if query.level == Level.SERIES:
                    yield below
                elif _matches_keys(below, query.keys):
                    yield from (
                        below | _instance_record(study, series, n)
                        for n in range(1, series.instance_count + 1)
                    )


def matches(vr: str, key: str, value: str) -> bool:
    """Match a value with a key: universal, single value, list, wildcard or range (PS3.4 C.2.2.2.1 to .5)."""
    key = key.strip(" \0")
    if key in ("", "*"):
        return True
    values = value.split("\\")
    if vr == "UI":
        wanted = {uid.strip(" \0") for uid in key.split("\\")}
        return any(uid in wanted for uid in values)
    if vr in _RANGE_VRS and "-" in key:
        first, _, last = key.partition("-")
        return bool(value) and first <= value and (not last or value[: len(last)] <= last)
    if vr in _NO_WILDCARD_VRS:
        return key in (one.strip() for one in values)
    pattern = _compile_pattern(key, vr == "PN")
    return any(pattern.fullmatch(one) for one in values)


@lru_cache(maxsize=256)
def _compile_pattern(key: str, ignore_case: bool) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    text = "".join(parts.get(character, re.escape(character)) for character in key)
    return re.compile(text, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _matches_keys(record: Record, keys: Mapping[str, str]) -> bool:
    """Match a record with its keys; keys that it does not have are ignored (PS3.4 C.2.2.1.3)."""
    return all(
        matches(dictionary_VR(keyword), key, record[keyword])
        for keyword, key in keys.items()
        if key and keyword in record
    )


def _study_record(study: DemoStudy) -> Record:
    patient = study.patient
    return {
        "PatientName": patient.name,
        "PatientID": patient.patient_id,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "StudyInstanceUID": study.study_uid,
        "StudyID": study.accession,
        "StudyDate": study.study_date,
        "StudyTime": study.study_time,
        "AccessionNumber": study.accession,
        "StudyDescription": study.description,
        "ModalitiesInStudy": "\\".join(study.modalities),
        "NumberOfStudyRelatedSeries": str(len(study.series)),
        "NumberOfStudyRelatedInstances": str(study.instance_count),
        "InstanceAvailability": "ONLINE",
    }


def _series_record(series: DemoSeries) -> Record:
    return {
        "SeriesInstanceUID": series.series_uid,
        "SeriesNumber": str(series.number),
        "SeriesDescription": series.description,
        "Modality": series.profile.modality,
        "NumberOfSeriesRelatedInstances": str(series.instance_count),
    }


def _instance_record(study: DemoStudy, series: DemoSeries, number: int) -> Record:
    instance = DemoInstance(study, series, number)
    return {
        "SOPInstanceUID": instance.sop_uid,
        "SOPClassUID": instance.sop_class,
        "InstanceNumber": str(number),
        "NumberOfFrames": str(series.profile.frames) if series.profile.frames > 1 else "",
    }
