"""Synthetic studies: small records from which every instance can be made at any time.

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
class SeriesProfile:
    """The properties of a series' instances; ``rows`` is 0 if they have no pixels."""

    modality: str
    sop_class: str
    syntax: str = EXPLICIT_LITTLE
    rows: int = 0
    columns: int = 0
    bits: int = 16
    frames: int = 1


CT = SeriesProfile("CT", "1.2.840.10008.5.1.4.1.1.2", rows=512, columns=512)
MR = SeriesProfile("MR", "1.2.840.10008.5.1.4.1.1.4", IMPLICIT_LITTLE, rows=256, columns=256)
CR = SeriesProfile("CR", "1.2.840.10008.5.1.4.1.1.1", EXPLICIT_BIG, rows=640, columns=512)
DX = SeriesProfile("DX", "1.2.840.10008.5.1.4.1.1.1.1", rows=1024, columns=1024)
US = SeriesProfile(
    "US", "1.2.840.10008.5.1.4.1.1.3.1", RLE_LOSSLESS, rows=192, columns=256, bits=8, frames=20
)
SR = SeriesProfile("SR", "1.2.840.10008.5.1.4.1.1.88.11")
TINY = SeriesProfile("CT", "1.2.840.10008.5.1.4.1.1.2", rows=64, columns=64)
#: Profiles by the names that :func:`generate_studies` takes.
PROFILES = {"tiny": TINY, "ct": CT, "mr": MR, "cr": CR, "dx": DX, "us": US, "sr": SR}


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """A person who does not exist."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class DemoSeries:
    """A series of ``instance_count`` instances of one profile."""

    series_uid: str
    number: int
    description: str
    profile: SeriesProfile
    instance_count: int


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """A study with its series, and all values that queries return."""

    study_uid: str
    patient: DemoPatient
    accession: str
    study_date: str
    study_time: str
    description: str
    series: tuple[DemoSeries, ...]

    @property
    def instance_count(self) -> int:
        """Number of Study Related Instances."""
        return sum(series.instance_count for series in self.series)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in Study, each once."""
        return tuple(dict.fromkeys(series.profile.modality for series in self.series))

    def instances(self) -> Iterator[DemoInstance]:
        """Yield every instance."""
        for series in self.series:
            for number in range(1, series.instance_count + 1):
                yield DemoInstance(self, series, number)


@dataclass(frozen=True, slots=True)
class DemoInstance:
    """One instance: its study, series and number, on which alone its bytes depend."""

    study: DemoStudy
    series: DemoSeries
    number: int

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID, derived from the series and the number."""
        return make_uid(self.series.series_uid, self.number)

    @property
    def sop_class(self) -> str:
        """SOP Class UID."""
        return self.series.profile.sop_class


def make_uid(*parts: object) -> str:
    """Make a UID that depends on the parts alone (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def make_study(
    patient: DemoPatient,
    accession: str,
    day: date,
    *series: tuple[SeriesProfile, int],
    description: str = "",
    variant: int = 0,
) -> DemoStudy:
    """Make a study of series (profile, number of images); ``variant`` distinguishes equal studies."""
    uid = make_uid(patient.patient_id, accession, day, variant)
    all_series = tuple(
        DemoSeries(make_uid(uid, number), number, f"{profile.modality} series {number}", profile, images)
        for number, (profile, images) in enumerate(series, start=1)
    )
    text = description or f"{series[0][0].modality} examination"
    return DemoStudy(uid, patient, accession, f"{day:%Y%m%d}", "101500", text, all_series)


def make_accession(rng: random.Random, day: date) -> str:
    """Make an accession number with the year in the middle: five digits, YY, five digits."""
    return f"{rng.randrange(10**5):05d}{day:%y}{rng.randrange(10**5):05d}"


def generate_studies(
    count: int, seed: int = 1, profile: str = "tiny", *, series: int = 1, images: int = 3
) -> list[DemoStudy]:
    """Make ``count`` similar studies of ``series`` x ``images`` instances with the named profile each.

    A patient has one to three studies; accession numbers are unique.
    """
    rng = random.Random(f"{seed}/{profile}")
    layout = ((PROFILES[profile], images),) * series
    studies: list[DemoStudy] = []
    while len(studies) < count:
        patient = make_patient(rng, f"{seed:02d}{len(studies):07d}")
        for _ in range(min(rng.randint(1, 3), count - len(studies))):
            day = date(2018, 1, 1) + timedelta(days=rng.randrange(365))
            accession = f"{len(studies):06d}{day:%y}{seed % 10**5:05d}"
            studies.append(make_study(patient, accession, day, *layout))
    return studies


def make_patient(rng: random.Random, patient_id: str, name: str = "") -> DemoPatient:
    """Make a patient with an invented name, birth date and sex."""
    born = date(1930, 1, 1) + timedelta(days=rng.randrange(80 * 365))
    invented = f"{rng.choice(_FAMILY)}^{rng.choice(_GIVEN)}"
    return DemoPatient(patient_id, name or invented, f"{born:%Y%m%d}", rng.choice("FM"))


_FAMILY = ("Quarry", "Stone", "Slate", "Marble", "Flint", "Basalt", "Granite", "Chalk")
_GIVEN = ("Ada", "Ben", "Cleo", "Dov", "Eve", "Finn", "Gia", "Hal")
