"""A model of an archive and of a cohort, small enough to be chosen at random: data, meaning and strategies.

``python -m tests.faults.archive_model 10000`` runs a job against so many models, and prints the outcomes and
the defects. A model is a value: its repr is Python, to be copied into an ``@example`` of
:mod:`tests.faults.test_archive_model`.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from hypothesis import strategies as st

from dicom_quarry.demo.synthetic_studies import DemoPatient, DemoSeries, DemoStudy, SeriesProfile, make_uid

_PROFILES = {
    "CT": SeriesProfile("CT", "1.2.840.10008.5.1.4.1.1.2", rows=4, columns=4),
    "MR": SeriesProfile("MR", "1.2.840.10008.5.1.4.1.1.4", rows=4, columns=4),
}
COUNTS = (
    "NumberOfStudyRelatedInstances",
    "NumberOfStudyRelatedSeries",
    "NumberOfSeriesRelatedInstances",
    "NumberOfPatientRelatedStudies",
)


class _Brief:
    """Has a repr without the fields that have their default."""

    def __repr__(self) -> str:
        values = [(one, getattr(self, one.name)) for one in fields(self)]  # type: ignore[arg-type]
        changed = ", ".join(f"{one.name}={value!r}" for one, value in values if value != one.default)
        return f"{type(self).__name__}({changed})"


@dataclass(frozen=True, repr=False)
class HeldStudy(_Brief):
    """A study of the archive.

    ``accession`` may have several values. ``series`` are modality and number of instances of each.
    ``inside`` is the Patient ID in the images, where it differs from that of the answers.
    """

    patient: str = "P1"
    accession: str = "A1"
    date: str = "20180103"
    series: tuple[tuple[str, int], ...] = (("CT", 1),)
    inside: str | None = None

    def build(self, number: int) -> DemoStudy:
        """Return the synthetic study; ``number`` makes its UIDs."""
        uid = make_uid("model", number)
        series = tuple(
            DemoSeries(make_uid(uid, at), at, f"{modality} series", _PROFILES[modality], images)
            for at, (modality, images) in enumerate(self.series, start=1)
        )
        # A name beyond ASCII makes the synthetic images declare their character set.
        person = DemoPatient(self.patient, f"{self.patient or 'X'}^Mödel", "19500101", "F")
        return DemoStudy(
            uid, person, self.accession, self.date, "101500", f"{self.series[0][0]} study", series
        )


@dataclass(frozen=True, repr=False)
class Answers(_Brief):
    """How the archive answers queries.

    ``cap`` is the largest number of answers at ``cap_level`` (0: none), ``cap_end`` the final status then, or
    ``known`` where the archive ends with a success and the profile has the number. ``ranges``: ranges of
    dates are honoured, ignored, empty (they match nothing) or refused; ``undated_match``: studies without a
    date match every range. ``ignores`` are keys that match everything; ``matching`` of the others is exact,
    without regard to case, or by prefix. ``repeats``: every answer comes twice
    (each), or all answers come twice (whole). ``nameless`` is a level, and the number of the answer that has
    no UID there; if there are fewer answers, a copy of the last has none. ``lacks`` are attributes that
    answers do not have, ``excess`` is added to the counts of instances. ``reverses``: every second query is
    answered in the reverse order.
    """

    cap: int = 0
    cap_end: str = "A700"
    cap_level: str = "STUDY"
    ranges: str = "honoured"
    undated_match: bool = False
    ignores: tuple[str, ...] = ()
    matching: str = "exact"
    repeats: str = ""
    nameless: tuple[str, int] | None = None
    lacks: tuple[str, ...] = ()
    excess: int = 0
    charset: str = "utf-8"
    reverses: bool = False


@dataclass(frozen=True, repr=False)
class Pages(_Brief):
    """How a QIDO-RS server pages: at most ``size`` results a page (0: no limit), ``total`` altogether.

    A larger ``limit`` than ``refuses_above`` is refused. ``warns``: a page with more after it, or with
    results left out, has ``Warning: 299``; nothing shows a total without a warning.
    """

    size: int = 0
    total: int = 0
    heeds_offset: bool = True
    heeds_limit: bool = True
    refuses_above: int = 0
    warns: bool = False
    empty_array: bool = False


@dataclass(frozen=True, repr=False)
class Connection(_Brief):
    """What happens to connections.

    At most ``limit`` associations are open (0: no limit). The messages with the numbers ``breaks``, and every
    ``every``-th, are not sent: the association is aborted, or with ``cut`` its connection is closed. With
    ``stores`` the C-STORE associations of C-MOVE are closed instead, in the middle of an instance. ``behind``
    each final response the association is ended by an abort or a release.
    """

    limit: int = 0
    breaks: tuple[int, ...] = ()
    every: int = 0
    cut: bool = False
    stores: bool = False
    behind: str = ""


@dataclass(frozen=True, repr=False)
class Row(_Brief):
    """A row of the table: ``kind`` says which keys of a study it has; ``twist`` changes their letters."""

    kind: str = "accession"
    study: int = 0
    twist: str = ""


#: How a retrieval goes: all instances, none, half of them, all twice, one of another study too, all but one,
#: a refusal, or a success before the first instance is sent (C-MOVE; none is sent by the others).
SENDINGS = ("all", "none", "half", "twice", "stranger", "all-but-one", "refused", "late")

COLUMNS = ("MRN", "Accession", "Study Date", "From", "Until", "StudyInstanceUID")

#: The columns of each kind of row.
KINDS = {
    "accession": ("Accession",),
    "patient+accession": ("MRN", "Accession"),
    "patient+date": ("MRN", "Study Date"),
    "patient": ("MRN",),
    "study": ("StudyInstanceUID",),
    "patient+range": ("MRN", "From", "Until"),
    "accession+date": ("Accession", "Study Date"),
    "patient+study": ("MRN", "StudyInstanceUID"),
}
_FROM, _UNTIL = "20180101", "20180630"


@dataclass(frozen=True, repr=False)
class Model(_Brief):
    """An archive, and a job against it.

    ``sendings`` are for the first retrievals; afterwards all is sent, or with ``steady`` the last of them is
    repeated. ``where`` is a modality that every row requires, ``selects`` one that every series must have.
    ``excluded`` are patients on the exclusion list.
    """

    transport: str = "move"
    studies: tuple[HeldStudy, ...] = (HeldStudy(),)
    rows: tuple[Row, ...] = (Row(),)
    answers: Answers = Answers()
    pages: Pages = Pages()
    connection: Connection = Connection()
    sendings: tuple[str, ...] = ()
    steady: bool = False
    excluded: tuple[str, ...] = ()
    where: str = ""
    selects: str = ""
    several: bool = False
    parallel: int = 1

    # -- the table

    def build_studies(self) -> list[DemoStudy]:
        """Return the studies that the archive holds."""
        return [study.build(number) for number, study in enumerate(self.studies)]

    def cells(self, row: Row) -> dict[str, str]:
        """Return the cells of a row by column; those that it does not have are missing."""
        at = row.study % len(self.studies)
        held = self.studies[at]
        values = {
            "MRN": held.patient or "NOBODY",
            "Accession": held.accession.split("\\")[0],
            "Study Date": held.date or "20180103",
            "From": _FROM,
            "Until": _UNTIL,
            "StudyInstanceUID": make_uid("model", at),
        }
        if row.twist == "case":
            values |= {name: values[name].swapcase() for name in ("MRN", "Accession")}
        if row.twist == "unknown":
            values |= {"MRN": "P9", "Accession": "A9", "StudyInstanceUID": "2.25.9"}
        return {name: values[name] for name in KINDS[row.kind]}

    def table(self) -> str:
        """Return the table as CSV."""
        lines = [",".join(self.cells(row).get(name, "") for name in COLUMNS) for row in self.rows]
        return "\n".join([",".join(COLUMNS), *lines]) + "\n"

    # -- what the rows mean

    def meant(self, row: Row) -> list[int]:
        """Return the studies that match the row, on an exclusion list or not."""
        cells = self.cells(row)
        return [at for at, study in enumerate(self.studies) if self._matches(at, study, cells)]

    def _matches(self, at: int, study: HeldStudy, cells: dict[str, str]) -> bool:
        own = {"MRN": study.patient, "Study Date": study.date, "StudyInstanceUID": make_uid("model", at)}
        if any(cells[name] != value for name, value in own.items() if name in cells):
            return False
        if "Accession" in cells and cells["Accession"] not in study.accession.split("\\"):
            return False
        if "From" in cells and not cells["From"] <= study.date <= cells["Until"]:
            return False
        return not self.where or any(modality == self.where for modality, _ in study.series)

    def wanted(self, row: Row) -> list[int]:
        """Return the studies that the row may fetch: of one patient, and of nobody on the exclusion list."""
        meant = [at for at in self.meant(row) if not self.is_excluded(self.studies[at].patient)]
        # Nothing shows that two studies without a Patient ID are of one patient.
        patients = {self.studies[at].patient or at for at in meant}
        if len(patients) > 1 and "MRN" not in self.cells(row) and not self.several:
            return []
        return [at for at in meant if self.instances(at)]

    def instances(self, at: int) -> dict[str, str]:
        """Return the wanted instances of a study: their Series Instance UIDs by SOP Instance UID."""
        return {
            instance.sop_uid: instance.series.series_uid
            for instance in self.studies[at].build(at).instances()
            if self.selects in ("", instance.series.profile.modality)
        }

    def is_excluded(self, patient: str) -> bool:
        """Return True for a patient on the exclusion list, which is compared without regard to case."""
        return bool(patient) and _fold(patient) in {_fold(one) for one in self.excluded}

    @property
    def is_honest(self) -> bool:
        """True if a job must end complete: all is within the standard, or recovers by itself."""
        answers, pages = self.answers, self.pages
        usual = Answers(
            ignores=answers.ignores,
            matching=answers.matching,
            repeats=answers.repeats,
            undated_match=answers.undated_match,
            lacks=answers.lacks,
            charset=answers.charset,
        )
        texts = "".join(study.patient + study.accession for study in self.studies)
        return (
            answers == usual
            and set(answers.lacks) <= set(COUNTS)
            and not {"SeriesInstanceUID", "StudyInstanceUID"} & set(answers.ignores)
            and (answers.charset == "utf-8" or texts.isascii())
            and not pages.total
            and (pages.heeds_offset or not (pages.size or pages.heeds_limit))
            and not pages.refuses_above
            and self.connection == Connection(limit=self.connection.limit, behind=self.connection.behind)
            and not self.sendings
            and all(study.inside is None for study in self.studies)
        )


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


# -- strategies

_PATIENTS = ("P1", "P1", "P2", "p1", "P12", "MÜ1", "")
_ACCESSIONS = ("A1", "A2", "a1", "A12", "A1\\A2", "Ä1")
_DATES = ("20180103", "20180104", "20180501", "19940101", "", "20990101")
_KEYWORDS = (
    "AccessionNumber",
    "PatientID",
    "StudyDate",
    "ModalitiesInStudy",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
_LACKING = ("PatientID", "AccessionNumber", "StudyDate", "ModalitiesInStudy", *COUNTS)
_LEVELS = ("STUDY", "SERIES", "IMAGE")

Change = Callable[[Callable[..., Any], Model], Model]


def _answers(**strategies: st.SearchStrategy[Any]) -> Change:
    return _field("answers", strategies)


def _field(name: str, strategies: dict[str, st.SearchStrategy[Any]]) -> Change:
    def change(draw: Callable[..., Any], model: Model) -> Model:
        drawn = {key: draw(strategy) for key, strategy in strategies.items()}
        return replace(model, **{name: replace(getattr(model, name), **drawn)})

    return change


def _direct(**strategies: st.SearchStrategy[Any]) -> Change:
    return lambda draw, model: replace(model, **{key: draw(one) for key, one in strategies.items()})


def _inside(draw: Callable[..., Any], model: Model) -> Model:
    at = draw(st.integers(0, len(model.studies) - 1))
    changed = replace(model.studies[at], inside=draw(st.sampled_from(("P1", "P2", "P3"))))
    return replace(model, studies=(*model.studies[:at], changed, *model.studies[at + 1 :]))


_some = st.sampled_from
_yes = st.just(True)

#: What may be odd about an archive or a job; a model has a few of these.
ODDITIES: dict[str, Change] = {
    "cap": _answers(
        cap=st.integers(1, 3), cap_end=_some(("A700", "FE00", "C001", "known")), cap_level=_some(_LEVELS)
    ),
    "ranges": _answers(ranges=_some(("ignored", "empty", "refused")), undated_match=st.booleans()),
    "undated": _answers(undated_match=_yes),
    "ignores": _answers(ignores=st.lists(_some(_KEYWORDS), min_size=1, max_size=2, unique=True).map(tuple)),
    "matching": _answers(matching=_some(("case", "prefix"))),
    "repeats": _answers(repeats=_some(("each", "whole"))),
    "nameless": _answers(nameless=st.tuples(_some(_LEVELS), st.integers(0, 3))),
    "lacks": _answers(lacks=st.lists(_some(_LACKING), min_size=1, max_size=3, unique=True).map(tuple)),
    "excess": _answers(excess=_some((1, -1))),
    "charset": _answers(charset=_some(("latin-1", "undeclared"))),
    "reverses": _answers(reverses=_yes),
    "pages": _field(
        "pages",
        {
            "size": st.integers(1, 4),
            "heeds_offset": st.booleans(),
            "heeds_limit": st.booleans(),
            "warns": st.booleans(),
            "empty_array": st.booleans(),
        },
    ),
    "refusal": _field("pages", {"refuses_above": _some((1, 2, 200))}),
    "total": _field("pages", {"total": st.integers(1, 4), "size": st.integers(0, 3), "warns": _yes}),
    "limit": _field("connection", {"limit": st.integers(1, 3)}),
    "behind": _field("connection", {"behind": _some(("abort", "release"))}),
    "breaks": _field(
        "connection",
        {"breaks": st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(tuple)},
    ),
    "unsteady": _field("connection", {"every": st.integers(2, 12)}),
    "stores": _field(
        "connection",
        {
            "stores": _yes,
            "breaks": st.lists(st.integers(1, 6), max_size=3).map(tuple),
            "every": _some((0, 2, 3)),
        },
    ),
    "cut": _field("connection", {"cut": _yes, "breaks": st.lists(st.integers(1, 40), min_size=1).map(tuple)}),
    "sendings": _direct(
        sendings=st.lists(_some(SENDINGS[1:]), min_size=1, max_size=3).map(tuple), steady=st.booleans()
    ),
    "inside": _inside,
    "excluded": _direct(
        excluded=st.lists(_some(("P1", "P2", "P3")), min_size=1, max_size=2, unique=True).map(tuple)
    ),
    "where": _direct(where=_some(("CT", "MR"))),
    "selects": _direct(selects=_some(("CT", "MR"))),
    "several": _direct(several=_yes),
    "parallel": _direct(parallel=st.integers(2, 3)),
}
TRANSPORTS = ("move", "get", "web")
_WEB_ONLY = {"pages", "refusal", "total"}
_DIMSE_ONLY = {"limit", "behind", "charset", "cap", "stores"}


def oddities_of(transport: str) -> list[str]:
    """Return the names of what may be odd about an archive with this transport."""
    without = _DIMSE_ONLY if transport == "web" else _WEB_ONLY
    if transport == "get":
        without = without | {"stores"}
    return [name for name in ODDITIES if name not in without]


@st.composite
def models(draw: Callable[..., Any]) -> Model:
    """Return a strategy for models with a few oddities."""
    transport = draw(_some(TRANSPORTS))
    patients = draw(st.lists(_some(_PATIENTS), min_size=1, max_size=3, unique=True))
    accessions = draw(st.lists(_some(_ACCESSIONS), min_size=1, max_size=3, unique=True))
    study = st.builds(
        HeldStudy,
        patient=_some(patients),
        accession=_some(accessions),
        date=_some(_DATES),
        series=st.lists(st.tuples(_some(("CT", "MR")), st.integers(1, 2)), min_size=1, max_size=2).map(tuple),
    )
    studies = tuple(draw(st.lists(study, min_size=1, max_size=6)))
    row = st.builds(
        Row,
        kind=_some(tuple(KINDS)),
        study=st.integers(0, len(studies) - 1),
        twist=_some(("",) * 6 + ("case", "unknown")),
    )
    model = Model(transport, studies, tuple(draw(st.lists(row, min_size=1, max_size=4))))
    for name in draw(st.sets(_some(oddities_of(transport)), min_size=draw(st.integers(0, 3)), max_size=3)):
        model = ODDITIES[name](draw, model)
    return model


if __name__ == "__main__":
    from tests.faults.model_job import main

    main(sys.argv[1:])
