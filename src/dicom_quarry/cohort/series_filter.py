"""Which series of a study are wanted: the flags ``--series``, ``--series-not`` and ``--min-instances``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicom_quarry.cohort.columns import normalize_header
from dicom_quarry.cohort.study_matching import matches_text
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import SeriesInfo

_KEYWORDS = {normalize_header(keyword): keyword for keyword in ("Modality", "SeriesDescription")}
_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")


@dataclass(frozen=True, slots=True)
class SeriesFilter:
    """Wanted are series that fit every keyword of ``only`` in one of its values, and none of ``without``.

    Of a series whose instances the archive did not count, ``min_instances`` cannot tell: it is kept.
    """

    include: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exclude: tuple[tuple[str, tuple[str, ...]], ...] = ()
    min_instances: int = 0

    @classmethod
    def parse(
        cls, series: Sequence[str] = (), series_not: Sequence[str] = (), min_instances: int | None = None
    ) -> SeriesFilter:
        """Read ``Modality=CT,MR`` and ``SeriesDescription=*AXIAL*``; raises ConfigError."""
        if min_instances is not None and min_instances < 1:
            raise ConfigError(f"--min-instances {min_instances}: write a number from 1")
        return cls(
            _parse_conditions("--series", series),
            _parse_conditions("--series-not", series_not),
            min_instances or 0,
        )

    def __bool__(self) -> bool:
        """False if every series is wanted."""
        return bool(self.include or self.exclude or self.min_instances)

    def select(self, series: Iterable[SeriesInfo]) -> tuple[SeriesInfo, ...]:
        """The series that are wanted, in their order."""
        return tuple(one for one in series if self._accepts(one))

    def _accepts(self, one: SeriesInfo) -> bool:
        if one.instance_count is not None and one.instance_count < self.min_instances:
            return False
        has = {"Modality": one.modality, "SeriesDescription": one.description}
        if any(_matches_any(values, has[keyword]) for keyword, values in self.exclude):
            return False
        return all(_matches_any(values, has[keyword]) for keyword, values in self.include)


#: Without any flag.
ALL_SERIES = SeriesFilter()


def _matches_any(values: Iterable[str], text: str) -> bool:
    return any(matches_text(value, text.strip(" \0")) for value in values)


def _parse_conditions(flag: str, texts: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Conditions by keyword; values of one keyword, in one flag or in several, are alternatives."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, given = text.partition("=")
        keyword = _KEYWORDS.get(normalize_header(name), "")
        if not keyword or not given.strip():
            raise ConfigError(f"{flag} '{text}': write Modality=CT,MR or SeriesDescription=*AXIAL*")
        # A description may have a comma in it.
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
