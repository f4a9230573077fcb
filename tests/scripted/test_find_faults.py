"""Every fault of a query really occurs, as pynetdicom sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from random import Random
from typing import Any

import pytest
from pynetdicom import evt

from dicom_quarry.demo.synthetic_studies import TINY, generate_studies, make_patient, make_study
from tests.scripted import faults, find_faults
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.client import associate, find

LATIN = make_study(make_patient(Random(1), "LATIN", "Østergård^Søren"), "A1", date(2018, 1, 1), (TINY, 1))
STUDIES = [*generate_studies(9), LATIN]
UID = STUDIES[0].study_uid


@contextmanager
def scripted(*switched_on: Fault) -> Iterator[Any]:
    with ScriptedArchive(STUDIES, switched_on) as archive, associate(archive) as assoc:
        yield assoc


def test_a_query_is_never_answered() -> None:
    with scripted(faults.SilentFind(times=1)) as assoc:
        assoc.dimse_timeout = 0.5
        assert find(assoc, "STUDY", StudyInstanceUID=UID) == (-1, [])


def test_an_offline_study_is_marked_until_it_is_recalled() -> None:
    with scripted(faults.Offline(times=1)) as assoc:
        _, [answer] = find(assoc, "STUDY", StudyInstanceUID=UID)
    assert answer.InstanceAvailability == "OFFLINE"


@pytest.mark.parametrize("status", [0xA700, 0xA900, 0xC000])
def test_a_status_for_the_first_tries(status: int) -> None:
    with scripted(find_faults.FindStatus(status, times=2)) as assoc:
        assert [find(assoc, "STUDY", StudyInstanceUID=UID)[0] for _ in range(3)] == [status, status, 0]


def test_a_level_is_not_supported() -> None:
    with scripted(find_faults.FindStatus(0xC000, level="IMAGE")) as assoc:
        assert find(assoc, "IMAGE", StudyInstanceUID=UID) == (0xC000, [])
        assert len(find(assoc, "SERIES", StudyInstanceUID=UID)[1]) == 1


def test_a_key_is_ignored() -> None:
    with scripted(find_faults.Ignore("AccessionNumber")) as assoc:
        assert len(find(assoc, "STUDY", AccessionNumber="nobody's")[1]) == 10


@pytest.mark.parametrize("status", [0x0000, 0xFE00, 0xA700])
def test_answers_are_capped(status: int) -> None:
    with scripted(find_faults.Capped(5, status)) as assoc:
        ended, answers = find(assoc, "STUDY", StudyInstanceUID="")
        assert (ended, len(answers)) == (status, 5)
        assert find(assoc, "STUDY", StudyInstanceUID=UID)[0] == 0


def test_answers_are_repeated() -> None:
    with scripted(find_faults.Repeated()) as assoc:
        _, answers = find(assoc, "STUDY", StudyInstanceUID=UID)
    assert [answer.StudyInstanceUID for answer in answers] == [UID, UID]


@pytest.mark.parametrize("padding", ["\0", " "])
def test_uids_are_padded(padding: str) -> None:
    received = []
    with scripted(find_faults.Padded(padding)) as assoc:
        assoc.bind(evt.EVT_DATA_RECV, lambda event: received.append(bytes(event.data)))
        find(assoc, "STUDY", StudyInstanceUID=UID)
    assert (UID + padding).encode() in b"".join(received)


def test_counts_are_missing() -> None:
    with scripted(find_faults.Without("NumberOfStudyRelatedInstances", "StudyInstanceUID")) as assoc:
        _, [answer] = find(assoc, "STUDY", StudyInstanceUID=UID, NumberOfStudyRelatedInstances="")
    assert "NumberOfStudyRelatedInstances" not in answer
    assert "StudyInstanceUID" not in answer


def test_a_range_of_dates_matches_nothing_or_is_refused() -> None:
    for fault in (find_faults.NoRanges(), find_faults.NoRanges(0xA900)):
        with scripted(fault) as assoc:
            assert find(assoc, "STUDY", StudyDate="20180101-20181231")[1] == []
            assert len(find(assoc, "STUDY", StudyInstanceUID=UID)[1]) == 1


def test_the_first_answers_lack_their_uid() -> None:
    with scripted(find_faults.Nameless(2)) as assoc:
        _, answers = find(assoc, "STUDY", AccessionNumber="*")
    assert ["StudyInstanceUID" in answer for answer in answers] == [False, False, *[True] * 8]


def test_latin_1_is_not_declared() -> None:
    with scripted(find_faults.Undeclared()) as assoc:
        _, [answer] = find(assoc, "STUDY", PatientID="LATIN", PatientName="")
    assert "SpecificCharacterSet" not in answer
    assert answer.PatientName.original_string == "Østergård^Søren".encode("latin-1")
