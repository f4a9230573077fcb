"""What is said of a row that matched nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.extraction.matching import accession_spellings, find_near_miss
from dicom_quarry.model import Study

HERE = (
    Study("1.1", "4711", "A100", "20180722"),
    Study("1.2", "4711", "A101", "20180730"),
    Study("1.3", "4712", "00123", "20190101"),
    Study("1.4", "4713", "123456", "20190101"),
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
        ({"AccessionNumber": "0123"}, "has the accession as 00123"),
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
    told = find_near_miss(archive.find, keys)
    assert said in told if said else not told
    assert archive.asked <= 4


def test_other_spellings_are_few_and_new() -> None:
    assert list(accession_spellings("00-12 3")) == ["00123", "-12 3", "000-12 3"]
    assert list(accession_spellings("A1")) == ["0A1", "a1"]
    assert list(accession_spellings("a1")) == ["0a1", "A1"]
    assert list(accession_spellings("1234567890123456")) == []
