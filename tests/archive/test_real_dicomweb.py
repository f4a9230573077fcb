"""Values with special characters against Orthanc, whose DICOMweb plugin 1.7 decodes nothing in a URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from dicom_quarry.archive.base import Archive
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.model import BaseUri
from tests.archive.sites import TITLE
from tests.peers.orthanc import DICOMWEB, Orthanc

pytestmark = pytest.mark.archive

#: Studies by their number.
STUDIES = (
    {"PatientID": "P/1", "AccessionNumber": "A/B", "StudyDescription": "THE CHEST CT"},
    {"PatientID": "P 2", "AccessionNumber": "A B+C", "StudyDescription": "Kopf, Schädel"},
    {"PatientID": "Pä-3", "AccessionNumber": "A-3", "StudyDescription": "胸部"},
    {"PatientID": "P4", "AccessionNumber": "A:4", "StudyDescription": "頭部 CT-1"},
)

QUERIES = (
    ({"AccessionNumber": "A/B"}, 1),
    ({"PatientID": "P/1", "AccessionNumber": "A/B"}, 1),
    ({"StudyDescription": "*CHEST*"}, 1),
    ({"StudyDescription": "THE CHEST CT"}, 1),
    ({"AccessionNumber": "A B+C"}, 2),
    ({"StudyDescription": "Kopf, Schädel"}, 2),
    ({"PatientID": "Pä-3"}, 3),
    ({"AccessionNumber": "A-3", "StudyDescription": "胸部"}, 3),
    ({"StudyDescription": "頭部 CT-1"}, 4),
    ({"AccessionNumber": "A:4"}, 4),
    ({"AccessionNumber": "A/C"}, None),
    ({"AccessionNumber": "A-3", "StudyDescription": "頭部"}, None),
)


def _file(number: int, values: dict[str, str]) -> bytes:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, f"1.2.{number}.1.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{number}", f"1.2.{number}.1"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@contextmanager
def _archive(server: Orthanc, transport: str) -> Iterator[Archive]:
    archive: Archive = (
        DimseArchive("main", server.ae, calling=TITLE, destination=TITLE)
        if transport == "dimse"
        else DicomWebArchive("main", BaseUri.parse(server.base))
    )
    try:
        yield archive
    finally:
        archive.close()


def test_every_value_is_found_by_both_transports(tmp_path: Path) -> None:
    with Orthanc(tmp_path, options={**DICOMWEB, "DefaultEncoding": "Utf8"}) as server:
        server.load(_file(number, values) for number, values in enumerate(STUDIES, start=1))
        for transport in ("dimse", "dicomweb"):
            with _archive(server, transport) as archive:
                for keys, number in QUERIES:
                    found = archive.find(keys)
                    expected = [] if number is None else [f"1.2.{number}"]
                    assert [study.study_uid for study in found.studies] == expected, (transport, keys)
                    assert found.complete
