"""What the archives hold in tests: real files of every kind, and synthetic studies around them.

The real files are those of pydicom's test data, byte for byte, except where an instance lacks a UID, has
that of another file, or is in the study of another patient: it gets new UIDs and keeps everything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

#: A patient with ten studies, and an accession that two studies share.
TEN_STUDIES_PATIENT = "Q-TEN"
TWIN_ACCESSION = "Q-TWIN"
TWIN_PATIENT = "Q-TWINS"
#: A patient whose name and study description are not ASCII.
UMLAUT_PATIENT = "Q-ÄÖÜ-1"

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
#: An archive without codecs can forward these in any way.
UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
# Cut in the middle on purpose, or (the last) not parsed by Orthanc 1.10: no archive has them.
_BROKEN = {"MR_truncated.dcm", "rtplan_truncated.dcm", "UN_sequence.dcm", "SC_rgb_jpeg.dcm"}


@dataclass(frozen=True, slots=True)
class Item:
    """One instance of the corpus, and the file that holds it."""

    path: Path
    patient_id: str
    accession: str
    study_date: str
    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str
    original: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """Instances, by study."""

    items: tuple[Item, ...]

    @property
    def paths(self) -> list[Path]:
        """Every file."""
        return [item.path for item in self.items]

    def studies(self) -> dict[str, list[Item]]:
        """The instances of every study."""
        studies: dict[str, list[Item]] = {}
        for item in self.items:
            studies.setdefault(item.study_uid, []).append(item)
        return studies

    def of_patient(self, patient_id: str) -> dict[str, list[Item]]:
        """The studies of a patient."""
        return {uid: items for uid, items in self.studies().items() if items[0].patient_id == patient_id}

    def uncompressed(self) -> Corpus:
        """Return the studies that an archive without codecs can forward: those without compressed images."""
        whole = {
            u for u, items in self.studies().items() if {i.transfer_syntax for i in items} <= UNCOMPRESSED
        }
        return Corpus(tuple(item for item in self.items if item.study_uid in whole))

    def smaller(self) -> Corpus:
        """Return the real files, and those synthetic studies that have something special."""
        special = {TEN_STUDIES_PATIENT, TWIN_PATIENT, UMLAUT_PATIENT}
        chosen = (i for i in self.items if i.patient_id in special or i.path.name.startswith("real-"))
        return Corpus(tuple(chosen))


def build(folder: Path, *, synthetic: int = 50) -> Corpus:
    """Write the corpus into a folder: the real files, then ``synthetic`` studies."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks about its own odd files
        items = [*_real(folder), *_synthetic(folder, synthetic)]
    return Corpus(tuple(items))


def _real(folder: Path) -> Iterator[Item]:
    source = Path(pydicom.data.__file__).parent / "test_files"
    seen: dict[str, str] = {}  # patient by study, and by instance
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path.name in _BROKEN or path.name.startswith("DICOMDIR"):
            continue
        # Of 50 images that differ in their number only, three are enough.
        if "TINY_ALPHA" in path.parts and path.name > "IM000002":
            continue
        item = _copy(path, folder / f"real-{len(seen):04d}.dcm", seen)
        if item is not None:
            seen[item.study_uid] = seen[item.sop_uid] = item.patient_id
            yield item


def _copy(path: Path, target: Path, seen: dict[str, str]) -> Item | None:
    """Copy a file, or write it with new UIDs; None for a file that is not an instance."""
    try:
        ds = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        return None
    if not ds.get("SOPClassUID") or not ds.file_meta.get("TransferSyntaxUID"):
        return None
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    lacking = [keyword for keyword in uids if not ds.get(keyword)]
    if seen.get(str(ds.get("StudyInstanceUID")), ds.get("PatientID") or "") != (ds.get("PatientID") or ""):
        lacking = list(uids)
    if not lacking and str(ds.SOPInstanceUID) not in seen:
        target.write_bytes(path.read_bytes())
        return _item(target, ds, original=True)
    for keyword in {*lacking, "SOPInstanceUID"}:
        setattr(ds, keyword, generate_uid(entropy_srcs=[path.name, keyword]))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(target)
    return _item(target, ds, original=False)


def _item(path: Path, ds: Dataset, *, original: bool) -> Item:
    return Item(
        path=path,
        patient_id=str(ds.get("PatientID") or ""),
        accession=str(ds.get("AccessionNumber") or ""),
        study_date=str(ds.get("StudyDate") or ""),
        study_uid=str(ds.StudyInstanceUID),
        series_uid=str(ds.SeriesInstanceUID),
        sop_uid=str(ds.SOPInstanceUID),
        sop_class=str(ds.SOPClassUID),
        transfer_syntax=str(ds.file_meta.TransferSyntaxUID),
        original=original,
    )


def _synthetic(folder: Path, count: int) -> Iterator[Item]:
    for number in range(count):
        patient, accession = f"Q-{number:04d}", f"QA{number:05d}"
        if number < 10:
            patient = TEN_STUDIES_PATIENT
        elif number < 12:
            patient, accession = TWIN_PATIENT, TWIN_ACCESSION
        elif number == 12:
            patient = UMLAUT_PATIENT
        yield from write_study(
            folder / f"synthetic-{number:04d}",
            patient_id=patient,
            accession=accession,
            study_date=f"2019{number % 12 + 1:02d}{number % 28 + 1:02d}",
            series=1 + number % 3,
            instances=2 + number % 4,
        )


def write_study(
    folder: Path,
    *,
    patient_id: str,
    accession: str,
    study_date: str = "20190101",
    series: int = 1,
    instances: int = 5,
    pixel_bytes: int = 512,
) -> list[Item]:
    """Write one synthetic CT study; its UIDs follow from patient, accession and folder name."""
    folder.mkdir(parents=True)
    items = []
    template = _template(patient_id, accession, study_date, [patient_id, accession, folder.name])
    for number, ds in enumerate(_instances(template, series, instances, pixel_bytes)):
        path = folder / f"{number:04d}.dcm"
        path.write_bytes(_encoded(ds))
        items.append(_item(path, ds, original=True))
    return items


def study_files(
    patient_id: str, accession: str, *, series: int, instances: int, pixel_bytes: int
) -> Iterator[bytes]:
    """The files of one synthetic CT study, made on the way."""
    template = _template(patient_id, accession, "20190101", [patient_id, accession])
    return map(_encoded, _instances(template, series, instances, pixel_bytes))


def _instances(template: Dataset, series: int, instances: int, pixel_bytes: int) -> Iterator[Dataset]:
    """The same dataset over and over, with the attributes of one instance after the other."""
    for s in range(series):
        template.SeriesInstanceUID = f"{template.StudyInstanceUID}.{s + 1}"
        template.SeriesNumber = s + 1
        for i in range(instances):
            template.SOPInstanceUID = f"{template.SeriesInstanceUID}.{i + 1}"
            template.InstanceNumber = i + 1
            template.PixelData = bytes([s % 256, i % 256]) * (pixel_bytes // 2)
            yield template


def _template(patient_id: str, accession: str, study_date: str, entropy: list[str]) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = CT
    ds.StudyInstanceUID = generate_uid(prefix="1.2.826.0.1.3680043.8.498.7.", entropy_srcs=entropy)[:55]
    ds.PatientID = patient_id
    ds.PatientName = f"Müller^{patient_id}"
    ds.AccessionNumber = accession
    ds.StudyDate = ds.SeriesDate = study_date
    ds.StudyTime = "101500"
    ds.Modality = "CT"
    ds.StudyDescription = "Schädel nativ"
    ds.StudyID = accession
    ds.Rows, ds.Columns = 16, 16
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.SamplesPerPixel = 1
    ds.PixelRepresentation = 0
    ds.PhotometricInterpretation = "MONOCHROME2"
    return ds


def _encoded(ds: Dataset) -> bytes:
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
