"""Attributes of series that an archive returns at one level, at another, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from dicom_quarry.archive.base import QueryRows
from dicom_quarry.archive.dimse.identifier import tag
from dicom_quarry.archive.series_listing import INSTANCE_COUNT, list_series
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level, SeriesInfo

KEYS = {"StudyInstanceUID": "1.2"}


@dataclass
class Pacs:
    """Returns at each level the attributes of ``returned``, for ``count`` series of two images."""

    returned: Mapping[Level, tuple[str, ...]]
    count: int = 2
    describe: Callable[[int], str] = "Axial {}".format
    image_error: QueryFailed | None = None
    queries: list[tuple[Level, str]] = field(default_factory=list)

    def __call__(self, level: Level, keys: Mapping[str, str], returns: Sequence[str]) -> QueryRows:
        self.queries.append((level, keys.get("SeriesInstanceUID", "")))
        if level is Level.SERIES:
            return QueryRows([self._row(level, number, returns) for number in range(1, self.count + 1)])
        if self.image_error:
            raise self.image_error
        number = int(keys["SeriesInstanceUID"].rpartition(".")[2])
        return QueryRows([self._row(level, number, returns, image) for image in (1, 2)])

    def _row(self, level: Level, number: int, returns: Sequence[str], image: int = 0) -> dict[int, str]:
        values = {
            "SeriesInstanceUID": f"1.2.{number}",
            "SOPInstanceUID": f"1.2.{number}.{image}",
            "Modality": "CT",
            "SeriesDescription": self.describe(number),
            INSTANCE_COUNT: "2",
        }
        unique = "SeriesInstanceUID" if level is Level.SERIES else "SOPInstanceUID"
        wanted = {unique, *self.returned.get(level, ())}
        return {tag(keyword): values[keyword] if keyword in wanted else "" for keyword in returns}


ALL = ("Modality", "SeriesDescription", INSTANCE_COUNT)


def listed(pacs: Pacs, *attributes: str) -> list[tuple[str, str, int | None, set[str]]]:
    found: tuple[SeriesInfo, ...] = list_series(pacs, KEYS, attributes)
    return [(one.modality, one.description, one.instance_count, set(one.unknown)) for one in found]


def test_what_the_series_have_costs_no_further_query() -> None:
    pacs = Pacs({Level.SERIES: ALL})
    assert listed(pacs, *ALL) == [("CT", "Axial 1", 2, set()), ("CT", "Axial 2", 2, set())]
    assert pacs.queries == [(Level.SERIES, "")]


def test_what_is_not_needed_costs_no_further_query() -> None:
    pacs = Pacs({Level.SERIES: ("Modality",)})
    assert listed(pacs, "Modality") == [("CT", "", None, set())] * 2
    assert len(pacs.queries) == 1


@pytest.mark.parametrize("keyword", ALL)
def test_what_the_series_lack_is_taken_from_their_images(keyword: str) -> None:
    others = tuple(one for one in ALL if one != keyword)
    pacs = Pacs({Level.SERIES: others, Level.IMAGE: ALL})
    assert listed(pacs, *ALL) == [("CT", "Axial 1", 2, set()), ("CT", "Axial 2", 2, set())]
    assert [level for level, _ in pacs.queries] == ["SERIES", "IMAGE", "IMAGE"]


def test_what_nothing_has_is_unknown_after_a_few_queries() -> None:
    pacs = Pacs({Level.SERIES: ("Modality",)}, count=9)
    assert listed(pacs, "Modality", "SeriesDescription") == [("CT", "", None, {"SeriesDescription"})] * 9
    assert len(pacs.queries) == 1 + 3


def test_an_empty_description_is_known_where_another_series_has_one() -> None:
    pacs = Pacs({Level.SERIES: ALL}, describe=lambda number: "Scout" if number == 1 else "")
    assert listed(pacs, "SeriesDescription") == [("CT", "Scout", 2, set()), ("CT", "", 2, set())]
    assert len(pacs.queries) == 1


def test_without_an_image_level_it_is_unknown() -> None:
    pacs = Pacs({}, image_error=QueryFailed("A900", status=0xA900))
    assert listed(pacs, INSTANCE_COUNT) == [("", "", None, {INSTANCE_COUNT})] * 2


def test_a_query_that_fails_for_now_is_an_error() -> None:
    with pytest.raises(QueryFailed):
        listed(Pacs({}, image_error=QueryFailed("A700", status=0xA700)), "Modality")
