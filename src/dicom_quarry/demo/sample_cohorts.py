"""The studies of the demonstration and of docs/first-extraction.md, and three cohort tables."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from dicom_quarry.demo.synthetic_studies import (
    CR,
    CT,
    DX,
    MR,
    SR,
    US,
    DemoStudy,
    make_accession,
    make_patient,
    make_study,
)

#: A patient ID and an accession in the format of the demo studies, which no study has.
_UNMATCHED = ("9999999", "999991899999")


def make_demo_studies(seed: int = 1) -> list[DemoStudy]:
    """Make some thirty studies (63 MB) that are difficult in a cohort; the same seed makes the same studies.

    Among them: identifiers with leading zeros, a patient with ten studies, a name outside ASCII, an accession
    with two studies, an accession shared by two patients, reports without pixels, big endian, RLE frames.
    """
    return list(_generate_studies(random.Random(seed)))


def _generate_studies(rng: random.Random) -> Iterator[DemoStudy]:
    day = date(2018, 7, 23)
    first = make_patient(rng, "0004711")
    yield make_study(first, make_accession(rng, day), day, (CT, 12), (CT, 8), (SR, 1))
    follow_up = day + timedelta(days=90)
    yield make_study(first, make_accession(rng, follow_up), follow_up, (MR, 20), (MR, 16))

    multi_study_accession = make_accession(rng, day)
    patient = make_patient(rng, "0004712", "Østergård^Søren")
    yield make_study(patient, multi_study_accession, day, (CR, 2), description="Chest, two views")
    yield make_study(patient, multi_study_accession, day, (US, 2), description="Abdomen", variant=1)

    shared_accession = make_accession(rng, day)
    yield make_study(make_patient(rng, "0004713"), shared_accession, day, (DX, 1))
    yield make_study(make_patient(rng, "0004714"), shared_accession, day, (DX, 2))

    frequent_patient = make_patient(rng, "0004715")
    for week in range(10):
        study_day = day + timedelta(weeks=week)
        yield make_study(frequent_patient, make_accession(rng, study_day), study_day, (CR, 1), (SR, 1))

    for number in range(14):
        study_date = day + timedelta(days=rng.randrange(150))
        layout = rng.choice([((MR, 12),), ((CT, 6),), ((US, 1), (SR, 1)), ((DX, 1),)])
        yield make_study(
            make_patient(rng, f"{4716 + number:07d}"), make_accession(rng, study_date), study_date, *layout
        )


#: Date and description of the studies of docs/first-extraction.md, as its test stores them in Orthanc.
_TUTORIAL_DAY, _TUTORIAL_DESCRIPTION = date(2019, 1, 1), "Schädel nativ"


def make_tutorial_studies() -> list[DemoStudy]:
    """Make the studies that docs/first-extraction.md finds at once: A1001 of P-100 and A1002 of P-200."""
    return [_make_tutorial_study(number) for number in (1, 2)]


def make_late_study() -> DemoStudy:
    """Make the study that docs/first-extraction.md finds in its last step alone: A1003 of P-300."""
    return _make_tutorial_study(3)


def _make_tutorial_study(number: int) -> DemoStudy:
    patient = make_patient(random.Random(number), f"P-{number}00")
    return make_study(
        patient, f"A100{number}", _TUTORIAL_DAY, (CT, 4 * number), description=_TUTORIAL_DESCRIPTION
    )


def write_cohorts(folder: Path, studies: Sequence[DemoStudy]) -> list[Path]:
    """Write a cohort table of each of the three formats over a third of the studies each.

    Every table has a row that is repeated. The table with dates is complete; tables with accessions also have
    a row without a match, and an accession of two studies, if the studies have one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patient, accession = _UNMATCHED
    double = _find_two_study_accession(studies)
    by_both = [(s.patient.patient_id, s.accession) for s in (*double, *studies[0::3])]
    by_date = [(s.patient.patient_id, s.study_date) for s in studies[1::3]]
    by_accession = [(s.accession,) for s in (*double, *studies[2::3])]
    return [
        _write_cohort(folder / "empi_accession.csv", "EMPI,Accession", ",", by_both, (patient, accession)),
        _write_cohort(folder / "empi_date.csv", "EMPI, Study Date", ", ", by_date),
        _write_cohort(folder / "accession.csv", "Accession", ",", by_accession, (accession,)),
    ]


def _find_two_study_accession(studies: Iterable[DemoStudy]) -> list[DemoStudy]:
    """Return one study of an accession that has two, of the same patient."""
    keys = Counter((s.patient.patient_id, s.accession) for s in studies)
    return [s for s in studies if keys[s.patient.patient_id, s.accession] == 2][:1]


def _write_cohort(
    path: Path, header: str, delimiter: str, rows: Iterable[tuple[str, ...]], *unmatched: tuple[str, ...]
) -> Path:
    """Write header and rows: each once, then those that match nothing, and the first one again."""
    unique = list(dict.fromkeys(rows))
    lines = [header, *(delimiter.join(row) for row in (*unique, *unmatched, *unique[:1]))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
