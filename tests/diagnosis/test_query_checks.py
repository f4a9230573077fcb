"""Questions about a study, to archives that know one information model well and the other not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, Findings, ModelName, StepStatus
from dicom_quarry.diagnosis.query_checks import StudyQueryCheck
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import InstanceRef, Listing, SeriesInfo, Study, Task

STUDY = Study("1.2", "P1", "A1", "20190101", instance_count=1)


@dataclass
class Archive:
    """Knows one study; ``broken`` is the status that ends every query."""

    broken: int = 0
    by_image: bool = True
    name: str = "main"
    asked: list[dict[str, str]] = field(default_factory=list)

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        self.asked.append(dict(keys))
        if self.broken:
            raise QueryFailed(f"refused ({self.broken:04X})", status=self.broken)
        has = {"PatientID": "P1", "AccessionNumber": "A1", "StudyDate": "20190101"}
        return StudyQueryResult((STUDY,) if all(has[key] == value for key, value in keys.items()) else ())

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        return (SeriesInfo("1.2.1", "CT", "", None),)

    def list_instances(self, task: Task) -> Listing:
        listed = (InstanceRef("1.2", "1.2.1", "1.2.1.1"),) if self.by_image else ()
        return Listing(listed, ("1.2.1",), lists_instances=self.by_image, count=1)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Two(CheckContext):
    """A bench with an archive of its own for each model."""

    archives: Mapping[ModelName, Archive] = field(default_factory=dict)

    def open_archive(self, model: ModelName, answer_cap: int = 0, *, retrieve: str = "") -> Any:
        return self.archives[model]


def asked(study: Archive, patient: Archive, model: str = "study") -> tuple[list[CheckStep], Findings]:
    address = {"name": "main", "address": "A@127.0.0.1:1", "model": model}
    settings = Settings(archives=(ArchiveProfile.model_validate(address),), to=Path())
    bench = Two(settings, archives={"study": study, "patient": patient})
    bench.findings.usable_models = {"study": True, "patient": True}
    return list(StudyQueryCheck(bench, "A1").run()), bench.findings


def marks(steps: list[CheckStep]) -> dict[str, StepStatus]:
    return {step.name: step.status for step in steps}


def test_only_the_other_model_works() -> None:
    steps, learned = asked(Archive(broken=0x0122), Archive())
    assert learned.model == "patient"
    assert marks(steps)["query, Study Root"] is StepStatus.BAD
    (model,) = [step for step in steps if step.name == "model"]
    assert (model.status, model.message) == (StepStatus.BAD, "only Patient Root works")
    assert 'model = "patient"' in model.remedy
    assert marks(steps)["levels SERIES, IMAGE"] is StepStatus.GOOD


@pytest.mark.parametrize("model", ["study", "patient"])
def test_the_other_model_need_not_work(model: str) -> None:
    good, bad = Archive(), Archive(broken=0xA900)
    archives = (good, bad) if model == "study" else (bad, good)
    steps, learned = asked(*archives, model=model)
    assert learned.model == model
    assert [step.name for step in steps if step.status is StepStatus.BAD] == []
    notes = [name for name, status in marks(steps).items() if status is StepStatus.NOTE]
    assert len(notes) == 2 and notes[-1] == "attributes"


def test_patient_root_is_told_the_patient() -> None:
    patient = Archive()
    asked(Archive(), patient)
    assert patient.asked == [{"AccessionNumber": "A1", "PatientID": "P1"}]


def test_an_archive_that_cannot_list_instances() -> None:
    steps, _ = asked(Archive(by_image=False), Archive())
    (levels,) = [step for step in steps if step.name.startswith("levels")]
    assert levels.status is StepStatus.BAD
    assert "cannot list instances" in levels.message


def test_never_without_a_key() -> None:
    study, patient = Archive(), Archive()
    asked(study, patient)
    assert all(keys and all(keys.values()) for keys in study.asked + patient.asked)


def test_attributes_without_a_value_are_named_with_what_needs_them() -> None:
    steps, _ = asked(Archive(), Archive())
    (step,) = [step for step in steps if step.name == "attributes"]
    assert step.status is StepStatus.NOTE
    assert step.message == (
        "answered: NumberOfStudyRelatedInstances, Modality; no value of ModalitiesInStudy, StudyDescription, "
        "NumberOfStudyRelatedSeries, SeriesDescription, NumberOfSeriesRelatedInstances, SOPClassUID "
        "for this study"
    )
    assert "series cannot be selected by description" in step.remedy


def test_every_query_in_patient_root_has_the_patient_id() -> None:
    patient = Archive()
    asked(Archive(), patient, model="patient")
    # The accession alone finds the patient; after that each query names it.
    assert patient.asked[1:]
    assert all("PatientID" in keys for keys in patient.asked[1:])


def test_a_given_patient_id_is_in_every_query() -> None:
    address = {"name": "main", "address": "A@127.0.0.1:1", "model": "patient"}
    settings = Settings(archives=(ArchiveProfile.model_validate(address),), to=Path())
    archive = Archive()
    bench = Two(settings, archives={"patient": archive})
    bench.findings.usable_models = {"study": False, "patient": True}
    steps = list(StudyQueryCheck(bench, "A1", "P1").run())
    assert StepStatus.BAD not in marks(steps).values()
    assert all("PatientID" in keys for keys in archive.asked)


def test_patient_root_alone_asks_for_the_patient_id() -> None:
    steps, _ = asked(Archive(broken=0xA900), Archive(broken=0xA900), model="patient")
    assert steps[0].remedy.endswith("add --patient-id")
