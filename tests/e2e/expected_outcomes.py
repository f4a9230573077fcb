"""What an archive was loaded with, and so what a row must come to: worked out without Quarry."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from dicom_quarry.demo.synthetic_studies import (
    CR,
    DX,
    MR,
    SR,
    TINY,
    US,
    DemoStudy,
    generate_studies,
    make_patient,
    make_study,
)
from tests.peers.corpus import TEN_STUDIES_PATIENT, TWIN_ACCESSION, TWIN_PATIENT, UMLAUT_PATIENT, Corpus

#: Two patients have studies under it, in the real files and among the synthetic studies.
SHARED_ACCESSION = "2"
SHARING_PATIENTS = ("77654033", "98890234")


@dataclass(frozen=True, slots=True)
class Held:
    """A study as it was loaded."""

    study_uid: str
    patient_id: str
    patient_name: str
    accession: str
    study_date: str
    sop_uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Expected:
    """What report.csv must say of a row."""

    outcome: str
    code: str
    study_uids: frozenset[str] = frozenset()
    instances: int = 0


class Holding:
    """The studies of one archive."""

    def __init__(self, studies: Iterable[Held]) -> None:
        self.studies = {study.study_uid: study for study in studies}

    def match(self, *, patient: str = "", accession: str = "", day: str = "") -> list[Held]:
        """Studies that have these values."""
        return [
            study
            for study in self.studies.values()
            if patient in ("", study.patient_id)
            and accession in ("", study.accession)
            and day in ("", study.study_date)
        ]

    def expect(
        self, *, patient: str = "", accession: str = "", day: str = "", allow_several: bool = False
    ) -> Expected:
        """What a row with these keys comes to, the archive being in order."""
        found = self.match(patient=patient, accession=accession, day=day)
        if not found:
            near = self.match(accession=accession) if accession else self.match(patient=patient)
            return Expected("not_found", "near_miss" if patient and near else "study_not_found")
        if not patient and len({study.patient_id for study in found}) > 1 and not allow_several:
            return Expected("several_patients", "several_patients")
        uids = frozenset(study.study_uid for study in found)
        return Expected("complete", "all_listed_stored", uids, sum(len(study.sop_uids) for study in found))

    def identifying(self) -> set[str]:
        """What must not stand in a log: identifiers and names, where long enough to be told from a number."""
        values = {
            part
            for study in self.studies.values()
            for part in (study.patient_id, study.accession, *study.patient_name.split("^"))
        }
        return {value for value in values if len(value) > 3}


def of_corpus(corpus: Corpus, names: dict[str, str]) -> Holding:
    """What an archive holds after loading the corpus; ``names`` are the patients' names by study."""
    return Holding(
        Held(
            uid,
            items[0].patient_id,
            names.get(uid, ""),
            items[0].accession,
            items[0].study_date,
            frozenset(item.sop_uid for item in items),
        )
        for uid, items in corpus.studies().items()
    )


def of_demo(studies: Iterable[DemoStudy]) -> Holding:
    """What a demo archive holds."""
    return Holding(
        Held(
            study.study_uid,
            study.patient.patient_id,
            study.patient.name,
            study.accession,
            study.study_date,
            frozenset(instance.sop_uid for instance in study.instances()),
        )
        for study in studies
    )


def demo_holding() -> list[DemoStudy]:
    """More than 60 small studies, with what the corpus has to make a cohort difficult."""
    chance = random.Random(2)
    ten = make_patient(chance, TEN_STUDIES_PATIENT)
    twins = make_patient(chance, TWIN_PATIENT)
    umlaut = make_patient(chance, UMLAUT_PATIENT, "Müller^Jörg")
    first, second = (make_patient(chance, patient_id) for patient_id in SHARING_PATIENTS)
    day = date(2003, 5, 5)
    return [
        *(make_study(ten, f"QA{n:05d}", date(2019, n + 1, n + 1), (TINY, 2), (SR, 1)) for n in range(10)),
        *(make_study(twins, TWIN_ACCESSION, date(2019, 5, 1), (TINY, 4), variant=n) for n in range(2)),
        make_study(umlaut, "QA00012", date(2019, 1, 13), (TINY, 2)),
        make_study(first, SHARED_ACCESSION, date(2001, 1, 1), (TINY, 2)),
        make_study(second, SHARED_ACCESSION, day, (TINY, 3)),
        make_study(second, SHARED_ACCESSION, day, (MR, 1), variant=1),
        make_study(second, "134", day, (TINY, 1)),
        *(
            make_study(
                make_patient(chance, f"Q-{13 + n:04d}"), f"QA{13 + n:05d}", date(2019, 2, 14), (kind, 2)
            )
            for n, kind in enumerate((MR, CR, US, DX))
        ),
        *generate_studies(45, seed=3, images=2),
    ]
