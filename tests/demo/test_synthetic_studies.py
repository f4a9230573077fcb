"""Synthetic studies: the same for the same seed, small in memory, valid on the wire."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_frame
from pydicom.uid import UID

from dicom_quarry.demo import encoding
from dicom_quarry.demo.sample_cohorts import make_demo_studies, write_cohorts
from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import (
    CT,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PROFILES,
    DemoInstance,
    generate_studies,
)


def read(instance: DemoInstance, syntax: str) -> Dataset:
    """What pydicom makes of the bytes."""
    meta = encoding.encode([(0x00020010, "UI", syntax)])
    length = encoding.encode([(0x00020000, "UL", len(meta))])
    return dcmread(
        BytesIO(b"\0" * 128 + b"DICM" + length + meta + b"".join(encode_dataset(instance, syntax)))
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_an_instance_reads_back(profile: str) -> None:
    [study] = generate_studies(1, profile=profile, images=2)
    for instance in study.instances():
        ds = read(instance, instance.series.profile.syntax)
        assert (ds.SOPInstanceUID, ds.SOPClassUID) == (instance.sop_uid, instance.sop_class)
        assert (ds.StudyInstanceUID, ds.PatientID) == (study.study_uid, study.patient.patient_id)
        assert ds.InstanceNumber == instance.number
        if instance.series.profile.rows and not UID(instance.series.profile.syntax).is_compressed:
            assert len(ds.PixelData) == ds.Rows * ds.Columns * ds.BitsAllocated // 8


def test_a_report_has_content() -> None:
    [study] = generate_studies(1, profile="sr", images=1)
    ds = read(next(study.instances()), EXPLICIT_LITTLE)
    assert ds.ContentSequence[0].ConceptNameCodeSequence[0].CodeValue == "18748-4"


def test_little_endian_syntaxes_hold_the_same_pixels() -> None:
    [study] = generate_studies(1, profile="mr", images=1)
    instance = next(study.instances())
    explicit, implicit = read(instance, EXPLICIT_LITTLE), read(instance, IMPLICIT_LITTLE)
    assert explicit.PixelData == implicit.PixelData
    assert len(explicit) == len(implicit)


def test_compressed_frames_decode() -> None:
    [study] = generate_studies(1, profile="us", images=1)
    ds = read(next(study.instances()), PROFILES["us"].syntax)
    frames = [
        _rle_decode_frame(frame, ds.Rows, ds.Columns, 1, 8)
        for frame in generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames)
    ]
    assert [len(frame) for frame in frames] == [ds.Rows * ds.Columns] * ds.NumberOfFrames
    assert frames[0] != frames[1]


def test_the_same_seed_gives_the_same_studies() -> None:
    assert generate_studies(20) == generate_studies(20)
    assert generate_studies(20, seed=2) != generate_studies(20)
    assert make_demo_studies() == make_demo_studies()


def test_many_studies_take_little_memory() -> None:
    tracemalloc.start()
    studies = generate_studies(2000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(studies) < 2000


def test_a_large_instance_is_never_whole_in_memory() -> None:
    [study] = generate_studies(1, profile="ct", images=1)
    series = replace(study.series[0], profile=replace(CT, frames=400))
    instance = DemoInstance(study, series, 1)
    tracemalloc.start()
    total = sum(map(len, encode_dataset(instance)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total > 200_000_000
    assert peak < 4_000_000


def test_cohort_tables(tmp_path: Path) -> None:
    studies = make_demo_studies()
    both, by_date, by_accession = write_cohorts(tmp_path, studies)
    headers = [path.read_text(encoding="utf-8").splitlines()[0] for path in (both, by_date, by_accession)]
    assert headers == ["EMPI,Accession", "EMPI, Study Date", "Accession"]
    rows = by_accession.read_text(encoding="utf-8").splitlines()[1:]
    held = [study.accession for study in studies]
    assert rows[0] == rows[-1]
    assert held.count(rows[0]) == 2
    assert sum(row not in held for row in rows) == 1
    assert "\n\n" not in by_date.read_text(encoding="utf-8")
