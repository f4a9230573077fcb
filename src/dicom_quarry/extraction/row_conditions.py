"""The conditions of ``--where``: they select among the studies of a row, and are no part of its identity.

A row that names its study is queried by its own keys alone, so that one query answers both questions: is
there a study, and is it wanted. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dicom_quarry.cohort.study_filter import matches, study_attribute
from dicom_quarry.model import Study
from dicom_quarry.system.text_safety import escape_text

Keys = tuple[tuple[str, str], ...]

#: Keys with which a row matches few studies, whatever the conditions are.
_NARROW_KEYS = frozenset({"AccessionNumber", "StudyInstanceUID", "StudyDate"})
#: Conditions that are part of an identity: the archive always gets them.
_IDENTITY_KEYS = frozenset(
    {"PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID", "StudyID", "PatientName"}
)
#: An attribute that no study with images lacks: where it is missing, the archive does not return it.
_NEVER_EMPTY = frozenset({"ModalitiesInStudy", "StudyDate"})

#: Studies that a reason describes.
_MAX_DESCRIBED = 3
_MAX_VALUE = 64


@dataclass(frozen=True, slots=True)
class RowConditions:
    """The conditions of one job, as pairs of keyword and value; empty if there are none."""

    keys: Keys = ()

    @property
    def attributes(self) -> tuple[str, ...]:
        """The keywords that the archive has to return."""
        return tuple(keyword for keyword, _ in self.keys)

    def own_keys(self, keys: Keys) -> Keys:
        """Return the keys of a row without the conditions."""
        mine = dict(self.keys)
        return tuple(one for one in keys if one[0] not in mine)

    def query_keys(self, keys: Keys) -> Keys:
        """Return the keys to query first: those of the row, and the conditions that it needs.

        A row without an accession, a study or a date matches all studies of a patient, and a wildcard may
        match many. There the conditions make the answer smaller, so the archive gets them, too.
        """
        own = self.own_keys(keys)
        has_wildcard = any("*" in value or "?" in value for _, value in own)
        if has_wildcard or _NARROW_KEYS.isdisjoint(dict(own)):
            return keys
        return (*own, *(one for one in self.keys if one[0] in _IDENTITY_KEYS))

    def select(self, studies: Sequence[Study]) -> tuple[tuple[Study, ...], str, Mapping[str, object]]:
        """Return the studies that meet every condition; if none does, the code and details of the outcome."""
        kept = tuple(study for study in studies if matches(study, dict(self.keys)))
        if kept or not self.keys:
            return kept, "", {}
        unknown = [keyword for keyword in self.attributes if self._is_unknown(keyword, studies)]
        if unknown:
            return (), "condition_not_returned", {"keys": " and ".join(unknown)}
        return (), "study_filtered", {"what": self._describe(studies)}

    def _is_unknown(self, keyword: str, studies: Sequence[Study]) -> bool:
        """Return True if all but an attribute that the archive leaves out speaks for a study."""
        others = {name: value for name, value in self.keys if name != keyword}
        return keyword in _NEVER_EMPTY and any(
            not study_attribute(study, keyword) and matches(study, others) for study in studies
        )

    def _describe(self, studies: Sequence[Study]) -> str:
        """Describe the studies that exist and are not wanted, such as "the study exists, but is CT HEAD"."""
        different = list(dict.fromkeys(self._describe_difference(study) for study in studies))
        if len(studies) == 1:
            return f"the study exists, but {different[0]}"
        if len(different) == 1:
            return f"{len(studies):,} studies exist, but each {different[0]}"
        more = len(different) - _MAX_DESCRIBED
        text = "; ".join(f"one {one}" for one in different[:_MAX_DESCRIBED])
        return f"{len(studies):,} studies exist, but {text}" + (f"; and {more:,} more" if more > 0 else "")

    def _describe_difference(self, study: Study) -> str:
        """Describe the conditions that a study does not meet."""
        return " and ".join(
            _describe_value(keyword, study_attribute(study, keyword))
            for keyword, value in self.keys
            if not matches(study, {keyword: value})
        )


#: No conditions: every study is wanted.
NO_CONDITIONS = RowConditions()


def _describe_value(keyword: str, value: str) -> str:
    shown = escape_text(value.replace("\\", " "), limit=_MAX_VALUE)
    if keyword == "StudyDescription":
        return f"is {shown}" if shown else "has no description"
    if keyword == "ModalitiesInStudy":
        return f"is {shown}"
    if keyword == "StudyDate":
        return f"is of {_format_date(shown)}"
    return f"has the {keyword} {shown}" if shown else f"has no {keyword}"


def _format_date(text: str) -> str:
    try:
        return f"{datetime.strptime(text, '%Y%m%d'):%Y-%m-%d}"
    except ValueError:
        return text
