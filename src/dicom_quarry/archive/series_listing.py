"""The series of a study with the attributes by which a filter selects them.

An attribute that is empty in every series is not known: the archive may not return it at SERIES level. Then
the images are queried for it (PS3.4 C.4.1.3.1 allows further keys at every level).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from dicom_quarry.archive.attributes import SERIES_RETURN_KEYS, parse_series
from dicom_quarry.archive.base import QueryRows, Verdict
from dicom_quarry.archive.dimse.identifier import is_uid
from dicom_quarry.archive.dimse.status import interpret_failure
from dicom_quarry.archive.instance_listing import get_text
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level, SeriesInfo

INSTANCE_COUNT = "NumberOfSeriesRelatedInstances"

#: Series whose images are queried for an attribute until one has it; the archive does not return it then.
_MAX_SAMPLES = 3

#: A query at a level with these keys; the keywords name the attributes to return.
SeriesQuery = Callable[[Level, Mapping[str, str], Sequence[str]], QueryRows]


def list_series(
    query: SeriesQuery, keys: Mapping[str, str], attributes: Collection[str]
) -> tuple[SeriesInfo, ...]:
    """List the series of the study that ``keys`` name; those of ``attributes`` that stay unknown are noted.

    Raises QueryFailed if the list is incomplete.
    """
    series = parse_series(query(Level.SERIES, keys, SERIES_RETURN_KEYS))
    # A series may have no description, but each has a number of instances.
    lacking = [
        keyword
        for keyword in attributes
        if not (all if keyword == INSTANCE_COUNT else any)(one.has(keyword) for one in series)
    ]
    if not series or not lacking:
        return series
    described: list[SeriesInfo] = []
    for one in series:
        texts = [keyword for keyword in lacking if keyword != INSTANCE_COUNT]
        is_hopeless = len(described) >= _MAX_SAMPLES and not any(
            other.has(keyword) for other in described for keyword in texts
        )
        wanted = [keyword for keyword in lacking if keyword == INSTANCE_COUNT or not is_hopeless]
        described.append(_describe_by_images(query, keys, one, wanted) if wanted else one)
    unknown = frozenset(keyword for keyword in lacking if not any(one.has(keyword) for one in described))
    return tuple(replace(one, unknown=unknown) for one in described)


def _describe_by_images(
    query: SeriesQuery, keys: Mapping[str, str], series: SeriesInfo, attributes: Sequence[str]
) -> SeriesInfo:
    """Return the series with the attributes that its images have; unchanged if they cannot be listed."""
    texts = [keyword for keyword in attributes if keyword != INSTANCE_COUNT]
    try:
        found = query(
            Level.IMAGE, {**keys, "SeriesInstanceUID": series.series_uid}, ("SOPInstanceUID", *texts)
        )
    except QueryFailed as failure:
        if interpret_failure(failure).verdict is not Verdict.UNSUPPORTED:
            raise
        return series
    values = {
        keyword: next(filter(None, (get_text(row, keyword) for row in found.rows)), "") for keyword in texts
    }
    count = len({uid for row in found.rows if is_uid(uid := get_text(row, "SOPInstanceUID"))})
    is_counted = INSTANCE_COUNT in attributes and count and not found.incomplete_reason
    return replace(
        series,
        modality=series.modality or values.get("Modality", ""),
        description=series.description or values.get("SeriesDescription", ""),
        instance_count=count if is_counted and series.instance_count is None else series.instance_count,
    )
