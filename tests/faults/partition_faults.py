"""Item 13: an answer that is cut at a limit, and what the queries for parts of it prove.

A row is complete with exactly the archive's studies, or it is cut short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from random import Random

from dicom_quarry.demo.synthetic_studies import (
    CR,
    SR,
    TINY,
    DemoStudy,
    SeriesProfile,
    make_patient,
    make_study,
)
from tests.faults.query_faults import CUT_SHORT
from tests.faults.scenario import COMPLETE, ArchiveRequests, Scenario
from tests.scripted import find_faults
from tests.scripted.archive import Fault

_PATIENT = make_patient(Random(14), "PARTS-14")
_SMALL_CR = replace(CR, rows=32, columns=32)


def _study(name: str, day: date | None, profile: SeriesProfile = TINY) -> DemoStudy:
    study = make_study(_PATIENT, name, day or date(2018, 1, 1), (profile, 1))
    return study if day else replace(study, study_date="")


#: Six studies of one modality on six days; five of two modalities.
SIX = tuple(_study(f"X{n}", date(2017, n + 2, 11)) for n in range(6))
MIXED = (
    *(_study(f"T{n}", date(2016, n + 1, 7)) for n in range(3)),
    *(_study(f"R{n}", date(2015, n + 1, 7), _SMALL_CR) for n in range(2)),
)
UNDATED, UNDATED_REPORT = _study("U1", None), _study("U2", None, SR)
FUTURE = _study("F1", date(2099, 12, 31))
ANCIENT = replace(_study("F2", date(1858, 12, 31)), study_date="00010101")
ONE_DAY = tuple(_study(f"D{n}", date(2017, 5, 3)) for n in range(3))

_UNCOUNTED = find_faults.Without("NumberOfPatientRelatedStudies")


def _scenario(
    name: str,
    fault: str,
    does: str,
    studies: Sequence[DemoStudy],
    *further: Fault,
    cap: int = 4,
    days: str = "",
    finds: int,
    taken: int | None = None,
    profile: Mapping[str, object] | None = None,
) -> Scenario:
    """Make a scenario of a row by Patient ID; ``taken`` studies are stored, none if the row is cut short."""
    stored = tuple(int(number < (taken or 0)) for number in range(len(studies)))
    return Scenario(
        13,
        name,
        fault,
        does,
        lambda: [*further, find_faults.Capped(cap, 0xFE00, level="STUDY")],
        studies=tuple(studies),
        cohort=f"EMPI,Study Date\n{_PATIENT.patient_id},{days}\n",
        options={"whole_patients": True},
        profile=profile or {},
        rows=(COMPLETE if taken else CUT_SHORT,),
        stored=stored,
        exit_code=0 if taken else 1,
        requests=ArchiveRequests(
            tuple("STUDY" if each else "" for each in stored),
            (finds, sum(stored), sum(stored)),
            None,
        ),
    )


SCENARIOS = (
    _scenario(
        "capped-future",
        "a study beyond the limit is dated 2099",
        "finds it: the last range of dates has no end",
        (*SIX, FUTURE),
        finds=6,
        taken=7,
    ),
    _scenario(
        "capped-ancient",
        "a study beyond the limit is dated in the year 1",
        "finds it: the first range of dates has no beginning",
        (*SIX, ANCIENT),
        finds=6,
        taken=7,
    ),
    _scenario(
        "capped-undated",
        "a study beyond the limit has no date",
        "finds it by its modality: the parts by date and those by modality explain each other",
        (*MIXED, UNDATED_REPORT),
        finds=102,
        taken=6,
    ),
    _scenario(
        "capped-undated-uncounted",
        "the same, and the archive has no count of the patient's studies",
        "finds it by its modality all the same",
        (*MIXED, UNDATED_REPORT),
        _UNCOUNTED,
        finds=102,
        taken=6,
    ),
    _scenario(
        "capped-undated-hidden",
        "a study beyond the limit has no date, and too many others have its modality",
        "reports that the answer was cut short: the archive counts one study more than can be found",
        (*SIX, UNDATED),
        finds=6,
    ),
    _scenario(
        "capped-uncounted",
        "too many studies have one modality, and the archive has no count of the patient's studies",
        "reports that the answer was cut short: a study without a date cannot be excluded",
        SIX,
        _UNCOUNTED,
        finds=6,
    ),
    _scenario(
        "capped-range-in-row",
        "the same, with a study without a date, and the row has a range of dates",
        "takes the studies of the range: one without a date is not meant",
        (*SIX, UNDATED),
        _UNCOUNTED,
        days="20170101-20171231",
        finds=5,
        taken=6,
    ),
    _scenario(
        "capped-ranges-ignored",
        "the archive cuts its answers and ignores dates",
        "reports that the answer was cut short, after the first part outside of its range",
        SIX,
        find_faults.Ignore("StudyDate"),
        finds=2,
    ),
    _scenario(
        "capped-ranges-empty",
        "the archive cuts its answers, and a range of dates matches nothing",
        "reports that the answer was cut short: the parts lack what the whole answer has",
        SIX,
        find_faults.NoRanges(),
        finds=4,
    ),
    _scenario(
        "capped-ranges-refused",
        "the archive cuts its answers and refuses ranges of dates",
        "reports that the answer was cut short",
        SIX,
        find_faults.NoRanges(0xA900),
        finds=3,
    ),
    _scenario(
        "capped-at-one",
        "a C-FIND never gives more than one answer",
        "reports that the answer was cut short: a single answer is as long as the limit",
        SIX,
        cap=1,
        finds=1,
    ),
    _scenario(
        "capped-repeated",
        "every answer comes twice, and the limit counts both",
        "counts both as well, and finds every study",
        SIX,
        find_faults.Repeated(),
        finds=12,
        taken=6,
    ),
    _scenario(
        "capped-patient-day",
        "a patient has more studies on one day than the archive answers with",
        "reports that the answer was cut short",
        ONE_DAY,
        cap=2,
        finds=4,
    ),
    _scenario(
        "capped-query-limit",
        "the parts need more queries than the site allows for a row (max-queries-per-row = 3)",
        "stops at the third query, and reports that the answer was cut short",
        SIX,
        profile={"max-queries-per-row": 3},
        finds=3,
    ),
    _scenario(
        "nameless-answers",
        "two of six answers have no StudyInstanceUID",
        "reports that the answer is not whole after one query: narrower ones would not help",
        SIX,
        find_faults.Nameless(2),
        cap=100,
        finds=1,
    ),
)
