"""Filters on the archive's answers: studies that match the keys of a row, and series to fetch.

An archive may ignore a key, so :func:`matches` compares every study with the query again, by the rules of
PS3.4 C.2.2.2. A key whose attribute is missing from the answer does not match. :class:`SeriesFilter`
selects series by the options ``--series``, ``--series-not`` and ``--min-instances``. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from dicom_quarry.cohort.cell_values import QUERY_KEYS
from dicom_quarry.cohort.dates import range_bounds
from dicom_quarry.cohort.headers import normalize_header
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import SeriesInfo, Study
from dicom_quarry.wire.charsets import readings

#: Compared with regard to case: the IDs of two patients may differ only in case.
_EXACT = frozenset({"PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID"})


def matches(study: Study, keys: Mapping[str, str]) -> bool:
    """True if a study matches every key of a query. A SeriesInstanceUID is ignored at this level."""
    has = _attributes(study)
    return all(
        matches_value(keyword, query_value, has.get(keyword, ""))
        for keyword, query_value in keys.items()
        if keyword != "SeriesInstanceUID"
    )


def may_match(study: Study, keys: Mapping[str, str]) -> bool:
    """True unless an attribute that the study has contradicts a key of a query."""
    has = _attributes(study)
    return all(
        matches_value(keyword, query_value, has[keyword])
        for keyword, query_value in keys.items()
        if has.get(keyword) and keyword not in ("SeriesInstanceUID", "StudyInstanceUID")
    )


def study_attribute(study: Study, keyword: str) -> str:
    """Return the value of a study's attribute, empty if the archive gave none."""
    return _attributes(study).get(keyword, "").strip(" \0")


def _attributes(study: Study) -> dict[str, str]:
    return {
        **dict(study.extra_attributes),
        "PatientID": study.patient_id,
        "AccessionNumber": study.accession,
        "StudyDate": study.study_date,
        "StudyInstanceUID": study.study_uid,
        "ModalitiesInStudy": study.modalities,
        "StudyDescription": study.description,
    }


def matches_value(keyword: str, query_value: str, study_value: str) -> bool:
    """True if an archive's value matches a key: a single value, one of a list, a range, or a pattern."""
    if query_value == study_value:
        return True
    vr = QUERY_KEYS[keyword][0]
    if vr == "DA":
        return _in_date_range(query_value, study_value.strip().replace(".", ""))
    values = [one.strip(" \0") for one in study_value.split("\\")]
    wanted = [one.strip(" \0") for one in query_value.split("\\")]
    if vr == "PN":
        values = [name.split("=")[0].rstrip("^ ") for name in values]
        wanted = [name.rstrip("^ ") for name in wanted]
    return any(
        _matches_one(keyword, vr, each, reading)
        for each in wanted
        if each
        for value in values
        if value
        for reading in readings(value)
    )


def differ_in_case_alone(study: Study, keys: Mapping[str, str]) -> str:
    """Return the keyword of an identifier whose case alone keeps a study from matching, else empty."""
    has = _attributes(study)
    different = [keyword for keyword, value in keys.items() if not matches(study, {keyword: value})]
    is_alike = all(
        keyword in _EXACT and has.get(keyword, "").casefold() == keys[keyword].casefold()
        for keyword in different
    )
    return different[0] if different and is_alike else ""


def _in_date_range(query_value: str, study_value: str) -> bool:
    first, last = range_bounds(query_value)
    # Until 1993 dates were written with dots (PS3.5 6.2); a text that is not a date is in no range.
    return (
        bool(re.fullmatch(r"[0-9]{8}", study_value))
        and first <= study_value
        and (not last or study_value <= last)
    )


def _matches_one(keyword: str, vr: str, query_value: str, study_value: str) -> bool:
    if vr == "UI":
        return query_value == study_value
    if keyword in _EXACT and not ("*" in query_value or "?" in query_value):
        return query_value == study_value
    return matches_text(query_value, study_value)


def matches_text(pattern: str, text: str) -> bool:
    """True if a text matches, without regard to case; ``*`` is any text and ``?`` one character."""
    if "*" in pattern or "?" in pattern:
        return _compile_pattern(pattern).fullmatch(text) is not None
    return pattern.casefold() == text.casefold()


@lru_cache(maxsize=256)
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    # translate() gives an expression without backtracking; a bracket is not a wildcard in DICOM.
    return re.compile(translate(pattern.replace("[", "[[]")), re.IGNORECASE)


_INSTANCE_COUNT = "NumberOfSeriesRelatedInstances"
_KEYWORDS = {normalize_header(keyword): keyword for keyword in ("Modality", "SeriesDescription")}
_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")


@dataclass(frozen=True, slots=True)
class SeriesFilter:
    """A filter that keeps series which match every keyword of ``include`` and none of ``exclude``.

    A keyword matches if one of its values does. An attribute that the archive does not return decides
    nothing: see :meth:`undecided`.
    """

    include: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exclude: tuple[tuple[str, tuple[str, ...]], ...] = ()
    min_instances: int = 0

    @classmethod
    def parse(
        cls, series: Sequence[str] = (), series_not: Sequence[str] = (), min_instances: int | None = None
    ) -> SeriesFilter:
        """Parse conditions such as ``Modality=CT,MR``, ``SeriesDescription=*AXIAL*``; raises ConfigError."""
        if min_instances is not None and min_instances < 1:
            raise ConfigError(f"--min-instances {min_instances}: write 1 or more")
        return cls(
            _parse_conditions("--series", series),
            _parse_conditions("--series-not", series_not),
            min_instances or 0,
        )

    def __bool__(self) -> bool:
        """False if the filter keeps every series."""
        return bool(self.include or self.exclude or self.min_instances)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The keywords of the attributes by which the filter decides."""
        conditions = dict.fromkeys(keyword for keyword, _ in (*self.include, *self.exclude))
        return (*conditions, *([_INSTANCE_COUNT] if self.min_instances else []))

    def select(self, series: Iterable[SeriesInfo]) -> tuple[SeriesInfo, ...]:
        """Return the series that pass the filter, in their order."""
        return tuple(one for one in series if all(self._judge(one).values()))

    def undecided(self, series: Iterable[SeriesInfo]) -> tuple[str, ...]:
        """Return the attributes without which the filter cannot decide about a series."""
        judged = [self._judge(one) for one in series]
        open_cases = [one for one in judged if False not in one.values()]
        return tuple(
            keyword for keyword in self.attributes if any(one[keyword] is None for one in open_cases)
        )

    def _judge(self, one: SeriesInfo) -> dict[str, bool | None]:
        """Return for each attribute whether the series passes; None if the archive does not return it."""
        has = {"Modality": one.modality, "SeriesDescription": one.description}
        judged: dict[str, bool | None] = dict.fromkeys(self.attributes, True)
        if self.min_instances:
            count = one.instance_count
            judged[_INSTANCE_COUNT] = None if count is None else count >= self.min_instances
        for keyword, values in self.include:
            judged[keyword] = _matches_any(values, has[keyword])
        for keyword, values in self.exclude:
            judged[keyword] = judged[keyword] and not _matches_any(values, has[keyword])
        return judged | {keyword: None for keyword in judged if keyword in one.unknown}


#: The filter that keeps every series.
ALL_SERIES = SeriesFilter()


def _matches_any(values: Iterable[str], text: str) -> bool:
    return any(matches_text(value, text.strip(" \0")) for value in values)


def _parse_conditions(flag: str, texts: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parse conditions by keyword; the values of one keyword, in one option or several, are alternatives."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, given = text.partition("=")
        keyword = _KEYWORDS.get(normalize_header(name), "")
        if not keyword or not given.strip():
            raise ConfigError(f"{flag} '{text}': write Modality=CT,MR or SeriesDescription=*AXIAL*")
        # A description may contain a comma.
        values = given.upper().split(",") if keyword == "Modality" else [given]
        for value in values:
            found.setdefault(keyword, []).append(_check_value(flag, text, keyword, value.strip()))
    return tuple((keyword, tuple(dict.fromkeys(values))) for keyword, values in found.items())


def _check_value(flag: str, text: str, keyword: str, value: str) -> str:
    if keyword == "Modality" and not _MODALITY.fullmatch(value):
        raise ConfigError(f"{flag} '{text}': '{value}' is not a modality, such as CT or MR")
    if not value.strip("*?"):
        raise ConfigError(f"{flag} '{text}': this matches every series; leave it out")
    return value
