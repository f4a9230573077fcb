"""Synthetic studies: small records from which every instance can be made again, at any time.

Nothing here holds pixel data or lists instances: twenty thousand studies fit in a few megabytes, and an
instance of any size costs nothing until it is sent (see :mod:`dicom_quarry.demo.synthetic_instances`).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

_NAMESPACE = uuid.UUID("6f1c7b7e-52d0-4a53-9d3c-5f0a5a0d7c11")

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
#: Syntaxes in which the same pixel bytes may be sent (PS3.5 A.1, A.2).
LITTLE_ENDIAN = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the instances of a series are; ``rows`` is 0 where there are no pixels."""

    modality: str
    sop_class: str
    syntax: str = EXPLICIT_LITTLE
    rows: int = 0
    columns: int = 0
    bits: int = 16
    frames: int = 1


CT = Kind("CT", "1.2.840.10008.5.1.4.1.1.2", rows=512, columns=512)
MR = Kind("MR", "1.2.840.10008.5.1.4.1.1.4", IMPLICIT_LITTLE, rows=256, columns=256)
CR = Kind("CR", "1.2.840.10008.5.1.4.1.1.1", EXPLICIT_BIG, rows=640, columns=512)
DX = Kind("DX", "1.2.840.10008.5.1.4.1.1.1.1", rows=1024, columns=1024)
US = Kind("US", "1.2.840.10008.5.1.4.1.1.3.1", RLE_LOSSLESS, rows=192, columns=256, bits=8, frames=20)
SR = Kind("SR", "1.2.840.10008.5.1.4.1.1.88.11")
TINY = Kind("CT", "1.2.840.10008.5.1.4.1.1.2", rows=64, columns=64)
#: Kinds by the names that :func:`generate` takes.
PROFILES = {"tiny": TINY, "ct": CT, "mr": MR, "cr": CR, "dx": DX, "us": US, "sr": SR}


@dataclass(frozen=True, slots=True)
class Patient:
    """A person who does not exist."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class Series:
    """``images`` instances of one kind."""

    series_uid: str
    number: int
    description: str
    kind: Kind
    images: int


@dataclass(frozen=True, slots=True)
class Study:
    """A study with its series; everything that C-FIND answers are made of."""

    study_uid: str
    patient: Patient
    accession: str
    study_date: str
    study_time: str
    description: str
    series: tuple[Series, ...]

    @property
    def instance_count(self) -> int:
        """Number of Study Related Instances."""
        return sum(series.images for series in self.series)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in Study, each once."""
        return tuple(dict.fromkeys(series.kind.modality for series in self.series))

    def instances(self) -> Iterator[Instance]:
        """Every instance, made on the way."""
        for series in self.series:
            for number in range(1, series.images + 1):
                yield Instance(self, series, number)


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: where it belongs and its number, which is all that its bytes depend on."""

    study: Study
    series: Series
    number: int

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID, derived from the series and the number."""
        return make_uid(self.series.series_uid, self.number)

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return self.series.kind.sop_class


def make_uid(*parts: object) -> str:
    """A UID that depends on the parts alone (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def make_study(
    patient: Patient,
    accession: str,
    day: date,
    *series: tuple[Kind, int],
    description: str = "",
    copy: int = 0,
) -> Study:
    """A study of these (kind, number of images); ``copy`` tells apart two that are otherwise the same."""
    uid = make_uid(patient.patient_id, accession, day, copy)
    made = tuple(
        Series(make_uid(uid, number), number, f"{kind.modality} series {number}", kind, images)
        for number, (kind, images) in enumerate(series, start=1)
    )
    text = description or f"{series[0][0].modality} examination"
    return Study(uid, patient, accession, f"{day:%Y%m%d}", "101500", text, made)


def make_accession(chance: random.Random, day: date) -> str:
    """An accession number with the year in the middle: five digits, YY, five digits."""
    return f"{chance.randrange(10**5):05d}{day:%y}{chance.randrange(10**5):05d}"


def generate(
    count: int, seed: int = 1, profile: str = "tiny", *, series: int = 1, images: int = 3
) -> list[Study]:
    """``count`` alike studies for benches: ``series`` x ``images`` instances of the named profile each.

    A patient has one to three studies; accession numbers are unique.
    """
    chance = random.Random(f"{seed}/{profile}")
    layout = ((PROFILES[profile], images),) * series
    studies: list[Study] = []
    while len(studies) < count:
        patient = make_patient(chance, f"{seed:02d}{len(studies):07d}")
        for _ in range(min(chance.randint(1, 3), count - len(studies))):
            day = date(2018, 1, 1) + timedelta(days=chance.randrange(365))
            accession = f"{len(studies):06d}{day:%y}{seed % 10**5:05d}"
            studies.append(make_study(patient, accession, day, *layout))
    return studies


def make_patient(chance: random.Random, patient_id: str, name: str = "") -> Patient:
    """A patient with an invented name, birth date and sex."""
    born = date(1930, 1, 1) + timedelta(days=chance.randrange(80 * 365))
    invented = f"{chance.choice(_FAMILY)}^{chance.choice(_GIVEN)}"
    return Patient(patient_id, name or invented, f"{born:%Y%m%d}", chance.choice("FM"))


_FAMILY = ("Quarry", "Stone", "Slate", "Marble", "Flint", "Basalt", "Granite", "Chalk")
_GIVEN = ("Ada", "Ben", "Cleo", "Dov", "Eve", "Finn", "Gia", "Hal")
