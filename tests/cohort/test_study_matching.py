"""Matching on this side, and the choice of series."""

from __future__ import annotations

import time

import pytest

from dicom_quarry.cohort.study_filter import SeriesFilter, matches, matches_value
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import SeriesInfo, Study

STUDY = Study(
    study_uid="1.2.3",
    patient_id="P1",
    accession="A1",
    study_date="20180723",
    modalities="CT\\SR",
    description="CT Chest [lung]",
    extra_attributes=(("PatientName", "DOE^JANE^^"), ("StudyID", "7")),
)


@pytest.mark.parametrize(
    ("keyword", "query_value", "expected"),
    [
        ("PatientID", "P1", True),
        ("PatientID", "p1", False),
        ("PatientID", "P*", True),
        ("PatientID", "P", False),
        ("AccessionNumber", "A2", False),
        ("StudyDate", "20180723", True),
        ("StudyDate", "20180722", False),
        ("StudyDate", "20180701-20180731", True),
        ("StudyDate", "20180723-20180723", True),
        ("StudyDate", "20180724-", False),
        ("StudyDate", "20180723-", True),
        ("StudyDate", "-20180723", True),
        ("StudyDate", "-20180722", False),
        ("StudyInstanceUID", "1.2.3", True),
        ("StudyInstanceUID", "1.2", False),
        ("StudyInstanceUID", "1.2.4\\1.2.3", True),
        ("StudyInstanceUID", "1.2.4\\1.2.5", False),
        ("ModalitiesInStudy", "CT", True),
        ("ModalitiesInStudy", "SR", True),
        ("ModalitiesInStudy", "MR", False),
        ("ModalitiesInStudy", "C", False),
        ("ModalitiesInStudy", "?T", True),
        ("StudyDescription", "*chest*", True),
        ("StudyDescription", "ct chest [lung]", True),
        ("StudyDescription", "ct chest [?ung]", True),
        ("StudyDescription", "ct chest [l]*", False),
        ("StudyDescription", "chest", False),
        ("PatientName", "Doe^Jane", True),
        ("PatientName", "DOE*", True),
        ("PatientName", "ROE*", False),
        ("StudyID", "7", True),
        ("PatientSex", "F", False),  # the archive did not say
        ("InstitutionName", "*", False),
        ("SeriesInstanceUID", "9.9", True),  # of a series, a study says nothing
    ],
)
def test_a_study_is_matched_again(keyword: str, query_value: str, expected: bool) -> None:
    assert matches(STUDY, {keyword: query_value}) is expected


def test_every_key_has_to_match() -> None:
    assert matches(STUDY, {"PatientID": "P1", "StudyDate": "20180723", "ModalitiesInStudy": "CT"})
    assert not matches(STUDY, {"PatientID": "P1", "StudyDate": "20180723", "ModalitiesInStudy": "MR"})


@pytest.mark.parametrize(
    ("keyword", "query_value", "held", "expected"),
    [
        ("PatientID", "1", " 1 \0", True),
        ("StudyDate", "20180723", "2018.07.23", True),
        ("StudyDate", "20180101-20181231", "", False),
        ("StudyDate", "-20181231", "2018", False),
        ("PatientID", "1\\2", "2", True),
        ("PatientID", "", "2", False),
        ("PatientName", "DOE^JANE", "DOE^JANE=X^Y", True),
        ("StudyInstanceUID", "1.2*", "1.2.3", False),
    ],
)
def test_a_value_is_matched(keyword: str, query_value: str, held: str, expected: bool) -> None:
    assert matches_value(keyword, query_value, held) is expected


def test_a_pattern_of_many_stars_takes_no_time() -> None:
    begun = time.monotonic()
    assert not matches_value("StudyDescription", "*a" * 30 + "*b", "a" * 64)
    assert time.monotonic() - begun < 5


SERIES = [
    SeriesInfo("1", "CT", "AX, thin", 300),
    SeriesInfo("2", "CT", "scout", 2),
    SeriesInfo("3", "SR", "", 1),
    SeriesInfo("4", "mr ", "T1", None),
    SeriesInfo("5", "", "AX", 10),
]


@pytest.mark.parametrize(
    ("series", "without", "at_least", "chosen"),
    [
        ([], [], None, "12345"),
        (["Modality=CT"], [], None, "12"),
        (["modality=ct, MR"], [], None, "124"),
        (["Modality=CT", "Modality=MR"], [], None, "124"),
        (["Modality=CT", "SeriesDescription=ax*"], [], None, "1"),
        (["SeriesDescription=ax, thin"], [], None, "1"),
        ([], ["Modality=SR,PR,KO"], None, "1245"),
        ([], ["Series Description=*scout*"], None, "1345"),
        (["Modality=CT"], ["SeriesDescription=scout"], None, "1"),
        ([], [], 3, "15"),
        ([], [], 300, "1"),
        ([], [], 301, ""),
        (["Modality=US"], [], None, ""),
    ],
)
def test_series_are_chosen(series: list[str], without: list[str], at_least: int | None, chosen: str) -> None:
    wanted = SeriesFilter.parse(series, without, at_least)
    assert "".join(one.series_uid for one in wanted.select(SERIES)) == chosen
    assert bool(wanted) == (chosen != "12345")
    assert wanted.undecided(SERIES) == (("NumberOfSeriesRelatedInstances",) if at_least else ())


@pytest.mark.parametrize(
    ("series", "without", "unknown", "undecided"),
    [
        (["SeriesDescription=ax*"], [], "SeriesDescription", ("SeriesDescription",)),
        ([], ["SeriesDescription=scout"], "SeriesDescription", ("SeriesDescription",)),
        (["Modality=CT"], ["SeriesDescription=scout"], "SeriesDescription", ("SeriesDescription",)),
        # Another condition decides already, or the attribute is not needed.
        (["Modality=US"], ["SeriesDescription=scout"], "SeriesDescription", ()),
        (["Modality=CT"], [], "SeriesDescription", ()),
        # An empty value of an attribute that the archive returns is a value.
        (["SeriesDescription=ax*"], [], "", ()),
    ],
)
def test_an_attribute_that_the_archive_does_not_return_decides_nothing(
    series: list[str], without: list[str], unknown: str, undecided: tuple[str, ...]
) -> None:
    found = [SeriesInfo("1", "CT", "", 3, frozenset(filter(None, [unknown])))]
    assert SeriesFilter.parse(series, without, None).undecided(found) == undecided


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["CT"], []), "--series 'CT': write Modality=CT,MR or SeriesDescription=*AXIAL*"),
        ((["Modality="], []), "--series 'Modality=': write Modality=CT,MR or SeriesDescription=*AXIAL*"),
        (([], ["StudyDate=1"]), "--series-not 'StudyDate=1': write Modality=CT,MR or"),
        ((["Modality=CT,"], []), "--series 'Modality=CT,': '' is not a modality, such as CT or MR"),
        ((["Modality=C*"], []), "--series 'Modality=C*': 'C*' is not a modality, such as CT or MR"),
        (([], ["SeriesDescription=*"]), "--series-not 'SeriesDescription=*': this matches every series"),
        (([], [], 0), "--min-instances 0: write 1 or more"),
    ],
)
def test_a_filter_that_cannot_be_understood_is_refused(
    arguments: tuple[list[str], ...], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        SeriesFilter.parse(*arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)
