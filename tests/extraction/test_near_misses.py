"""What is said of a row that matched nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.extraction.lost_zeros import LostZeros
from dicom_quarry.extraction.matching import accession_spellings, find_near_miss
from dicom_quarry.model import Study

HERE = (
    Study("1.1", "4711", "A100", "20180722"),
    Study("1.2", "4711", "A101", "20180730"),
    Study("1.3", "4712", "00123", "20190101"),
    Study("1.4", "4713", "123456", "20190101"),
    Study("1.5", "000815", "0000077", "20190101"),
    Study("1.6", "000000000816", "A1", "20190101"),
)


class Archive:
    def __init__(self) -> None:
        self.asked = 0

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        self.asked += 1
        has = {"PatientID": "patient_id", "AccessionNumber": "accession", "StudyDate": "study_date"}
        return StudyQueryResult(
            tuple(one for one in HERE if all(getattr(one, has[key]) == value for key, value in keys.items()))
        )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"PatientID": "4719", "AccessionNumber": "A100"}, "under another patient ID, 4711"),
        ({"StudyDate": "20180101", "AccessionNumber": "A100"}, "on another date, 20180722"),
        ({"AccessionNumber": "A100", "StudyDescription": "*HEAD*"}, "find it together with StudyDescription"),
        ({"AccessionNumber": "A100", "StudyInstanceUID": "1.9"}, "in another study"),
        ({"AccessionNumber": "123-456"}, "has the accession as 123456"),
        ({"AccessionNumber": "000123456"}, "has the accession as 123456"),
        ({"AccessionNumber": "0123"}, "as 00123: if Excel dropped zeros, add --pad AccessionNumber=5"),
        ({"AccessionNumber": "77"}, "as 0000077: if Excel dropped zeros, add --pad AccessionNumber=7"),
        ({"PatientID": "815", "AccessionNumber": "0000077"}, "000815: if Excel dropped zeros, add --pad Pat"),
        ({"PatientID": "4711", "StudyDate": "20180723"}, "on 20180722 (1 day before), 20180730"),
        ({"PatientID": "4711", "StudyDate": "20180721"}, "on 20180722 (1 day later), 20180730"),
        ({"PatientID": "9999", "StudyDate": "20180723"}, ""),
        ({"PatientID": "9999", "AccessionNumber": "B7"}, ""),
        ({"AccessionNumber": "B7"}, ""),
        ({"StudyInstanceUID": "1.9"}, ""),
    ],
)
def test_near_misses(keys: dict[str, str], said: str) -> None:
    archive = Archive()
    told = find_near_miss(archive.find, keys, LostZeros())
    assert said in told if said else not told
    assert archive.asked <= 4


def test_other_spellings_are_few_and_new() -> None:
    assert list(accession_spellings("00-12 3")) == ["00123", "-12 3", "000-12 3"]
    assert list(accession_spellings("A1")) == ["0A1", "a1"]
    assert list(accession_spellings("a1")) == ["0a1", "A1"]
    assert list(accession_spellings("1234567890123456")) == []


def test_the_rows_try_other_widths_until_one_is_found_then_that_one_first() -> None:
    zeros = LostZeros()
    hints, queries = [], []
    for _ in range(3):
        archive = Archive()
        hints.append(find_near_miss(archive.find, {"PatientID": "816", "StudyDate": "20190101"}, zeros))
        queries.append(archive.asked)
    found = "the archive has the patient ID as 000000000816: if Excel dropped zeros, add --pad PatientID=12"
    assert hints == ["", found, found]
    assert max(queries) <= 4 and queries[2] == 2


def test_zeros_are_not_suggested_where_shorter_identifiers_match() -> None:
    zeros = LostZeros()
    zeros.note_match({"PatientID": "4711"})
    for _ in range(2):
        hint = find_near_miss(Archive().find, {"PatientID": "815", "StudyDate": "20190101"}, zeros)
    assert hint == "the archive has the patient ID as 000815"
