"""The descriptions and modalities of the studies of a plan, from which a user chooses conditions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dicom_quarry.model import Study
from dicom_quarry.system.text_safety import escape_text

#: Descriptions, and modalities, that a plan shows: those of the most studies.
_MAX_SHOWN = 10
_MAX_VALUE = 64

#: Different descriptions that are counted; an archive with free text has millions.
_MAX_COUNTED = 10_000


@dataclass(slots=True)
class CohortContent:
    """Numbers of studies, by description and by modality; a study with two modalities counts for both."""

    descriptions: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)

    def add(self, study: Study) -> None:
        """Count a study."""
        for modality in dict.fromkeys(study.modalities.split("\\")):
            self._count(self.modalities, modality)
        self._count(self.descriptions, study.description)

    def lines(self, *, descriptions: bool = True) -> list[str]:
        """Return a line for the modalities and one for the descriptions, those of the most studies first."""
        found = [("modalities", self.modalities)]
        found += [("descriptions", self.descriptions)] if descriptions else []
        return [f"{name}: {_format_counts(counts)}" for name, counts in found if any(counts)]

    @staticmethod
    def _count(counts: Counter[str], value: str) -> None:
        value = value.strip(" \0")
        if value in counts or len(counts) < _MAX_COUNTED:
            counts[value] += 1


def _format_counts(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    shown = [f"{_format_value(value)} {count:,}" for value, count in ordered[:_MAX_SHOWN]]
    more = len(ordered) - _MAX_SHOWN
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _format_value(value: str) -> str:
    return escape_text(value, limit=_MAX_VALUE) or "(none)"
