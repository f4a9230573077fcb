"""Items 32 and 33: values from outside, and what other software passes over."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import date
from random import Random

from dicom_quarry.demo.synthetic_studies import CT, DemoStudy, make_patient, make_study
from tests.faults.scenario import COMPLETE, STUDIES, ArchiveRequests, Scenario, by_accession
from tests.scripted import find_faults, sender_faults, store_faults

_COUNTS = ("NumberOfStudyRelatedInstances", "NumberOfStudyRelatedSeries", "NumberOfSeriesRelatedInstances")


def _odd(name: str, fault: str, **values: str | bytes) -> Scenario:
    return Scenario(
        32, name, fault, "takes the value for what it is worth", lambda: [find_faults.Values(**values)]
    )


def _lettered(study: DemoStudy) -> DemoStudy:
    """The study with UIDs that have letters and leading zeros."""
    series = tuple(replace(one, series_uid=f"1.02.SER-{number}.X") for number, one in enumerate(study.series))
    return replace(
        study,
        study_uid=f"{study.study_uid}.0A_B",
        series=tuple(replace(one, series_uid=f"{one.series_uid}.{study.accession}") for one in series),
    )


def _unknown_vr(vr: bytes) -> store_faults.Spoiled:
    """An element of an unknown VR, with a length of 16 bits, before every UID of the dataset."""
    return store_faults.Spoiled(
        lambda dataset: struct.pack("<HH2sH", 0x0008, 0x0001, vr, 4) + b"ODD " + dataset
    )


#: An instance that needs several PDUs.
LARGE = (make_study(make_patient(Random(33), "LARGE-33"), "L33", date(2018, 1, 1), (CT, 1)),)
LETTERED = tuple(map(_lettered, STUDIES))
LONG = tuple(replace(study, accession=f"LONG-ACCESSION-{study.accession}" * 2) for study in STUDIES)

SCENARIOS = (
    _odd("counts-beyond-64-bits", "counts beyond 2^63", **dict.fromkeys(_COUNTS, str(2**63))),
    _odd("counts-of-digits", "counts of 5,000 digits", **dict.fromkeys(_COUNTS, "9" * 5000)),
    _odd("negative-counts", "negative counts", **dict.fromkeys(_COUNTS, "-1")),
    _odd("counts-in-words", "counts that are no numbers", **dict.fromkeys(_COUNTS, "many")),
    _odd("absurd-dates", "study dates that are in no calendar", StudyDate="99999999"),
    _odd(
        "emoji-and-surrogates",
        "emoji, an unpaired surrogate, NULs and escape sequences in texts",
        StudyDescription="\U0001f9e0".encode() + b"\xed\xa0\x80\0\x1b[2J",
        ModalitiesInStudy="\U0001f480".encode(),
    ),
    Scenario(
        32,
        "long-identifiers",
        "accessions of more than 16 characters, in the archive and in the table",
        "searches for them as they are with --long-identifiers",
        lambda: [],
        studies=LONG,
        cohort=by_accession(LONG),
        options={"long_identifiers": True},
    ),
    Scenario(
        33,
        "uids-with-letters",
        "UIDs with letters and leading zeros",
        "takes them as identities, and makes safe file names of them",
        lambda: [],
        studies=LETTERED,
    ),
    Scenario(
        33,
        "unknown-vr",
        "an element of the VR ?? with a length of 16 bits comes before the UIDs",
        "reads past it",
        lambda: [_unknown_vr(b"??")],
    ),
    Scenario(
        33,
        "un-of-16-bits",
        "an element of the VR UN with a length of 16 bits comes before the UIDs",
        "reads past it",
        lambda: [_unknown_vr(b"UN")],
    ),
    Scenario(
        33,
        "empty-numbers",
        "Priority, Move Originator and its message ID come without a value",
        "takes them for absent",
        lambda: [sender_faults.SentBy(sender_faults.EmptyNumbers)],
    ),
    Scenario(
        33,
        "long-pdus",
        "PDUs are 12 bytes longer than the maximum that Quarry announced",
        "accepts them, and names that in the log",
        lambda: [sender_faults.SentBy(sender_faults.LongPdus)],
        studies=LARGE,
        rows=(COMPLETE,),
        stored=(1,),
        requests=ArchiveRequests(("STUDY",), (1, 1, 1)),
    ),
    Scenario(
        33,
        "patient-root",
        "a Patient Root archive ends every query without a Patient ID with A900",
        "names the patient in the search for a near miss, too, and repeats no query that ended with A900",
        lambda: [find_faults.NeedsPatient()],
        cohort=f"MRN,Accession\n{STUDIES[0].patient.patient_id},-{STUDIES[0].accession}\n,{STUDIES[1].accession}\n",
        profile={"model": "patient"},
        rows=(("not_found", "near_miss"), ("failed", "query_failed")),
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), None, None),
    ),
    Scenario(
        33,
        "no-echo",
        "C-ECHO is not offered, while C-FIND and C-MOVE work",
        "verifies the connection by an association for queries",
        lambda: [sender_faults.NoEcho()],
        requests=ArchiveRequests(associations=4),
    ),
)
