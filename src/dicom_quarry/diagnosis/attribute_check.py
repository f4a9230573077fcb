"""The optional attributes that an archive answers with, and the options that need them."""

from __future__ import annotations

from collections.abc import Sequence

from dicom_quarry.archive.base import Archive
from dicom_quarry.diagnosis.context import CheckStep, StepStatus
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import Listing, SeriesInfo, Study

_NAME = "attributes"

#: What is missing without an attribute (PS3.4 C.6.1.1: all of them are optional but Modality).
_NEEDED_FOR = {
    "ModalitiesInStudy": "a plan has no modalities",
    "StudyDescription": "rows cannot be searched by description",
    "NumberOfStudyRelatedInstances": "a plan has no sizes",
    "Modality": "series cannot be selected by modality",
    "SeriesDescription": "series cannot be selected by description",
    "SOPClassUID": "C-GET has to guess the kinds of images",
}


def check_attributes(archive: Archive, study: Study, listing: Listing) -> CheckStep:
    """Return the step that names the attributes with a value, and those without, for this study."""
    try:
        series = archive.list_series(study)
    except ArchiveError as error:
        return CheckStep(_NAME, StepStatus.NOTE, f"the series cannot be listed: {error}")
    has_value = _values(study, series, listing)
    answered = [keyword for keyword, given in has_value.items() if given]
    missing = [keyword for keyword, given in has_value.items() if not given]
    if not missing:
        return CheckStep(_NAME, StepStatus.GOOD, f"answered: {', '.join(answered)}")
    message = f"no value of {', '.join(missing)} for this study"
    if answered:
        message = f"answered: {', '.join(answered)}; {message}"
    effects = [_NEEDED_FOR[keyword] for keyword in missing if keyword in _NEEDED_FOR]
    remedy = f"if it is so for every study: {'; '.join(effects)}" if effects else ""
    return CheckStep(_NAME, StepStatus.NOTE, message, remedy)


def _values(study: Study, series: Sequence[SeriesInfo], listing: Listing) -> dict[str, bool]:
    return {
        "ModalitiesInStudy": bool(study.modalities),
        "StudyDescription": bool(study.description),
        "NumberOfStudyRelatedSeries": study.series_count is not None,
        "NumberOfStudyRelatedInstances": study.instance_count is not None,
        "Modality": any(one.modality for one in series),
        "SeriesDescription": any(one.description for one in series),
        "NumberOfSeriesRelatedInstances": any(one.instance_count is not None for one in series),
        "SOPClassUID": any(ref.sop_class for ref in listing.instances),
    }
