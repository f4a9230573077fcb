"""Items 23 to 28: the instances, and what is between the archive and us."""

from __future__ import annotations

import struct
from dataclasses import replace

from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies, make_uid
from tests.faults.scenario import COMPLETE, PENDING, STUDIES, ArchiveRequests, Scenario
from tests.scripted import faults, store_faults
from tests.scripted.store_faults import MORE

PARTIAL = ("partial", "instances_missing")

#: More moves at once than an archive takes that serialises them.
EIGHT = tuple(generate_studies(8, seed=26, images=1))


def _long(study: DemoStudy) -> DemoStudy:
    """The study with UIDs of more than 64 characters."""
    series = tuple(replace(one, series_uid=f"{one.series_uid}.{'1' * 60}") for one in study.series)
    return replace(study, study_uid=f"{study.study_uid}.{'2' * 60}", series=series)


def _with_group_2(dataset: bytes) -> bytes:
    """A transfer syntax inside the dataset, where it does not belong (PS3.5 7.1)."""
    value = b"1.2.840.10008.1.2.1\0"
    return struct.pack("<HH2sH", 2, 0x10, b"UI", len(value)) + value + dataset


def renamed(dataset: bytes) -> bytes:
    """The dataset under another SOP Instance UID than the command's."""
    uids = [i.sop_uid.encode() for study in STUDIES for i in study.instances() if i.number == 1]
    for uid in uids:
        dataset = dataset.replace(uid, make_uid(uid).encode()[: len(uid)].ljust(len(uid), b"1"))
    return dataset


LONG = tuple(map(_long, STUDIES))

SCENARIOS = (
    Scenario(
        24,
        "long-uids",
        "UIDs of more than 64 characters",
        "takes them as they are",
        lambda: [],
        studies=LONG,
    ),
    Scenario(
        24,
        "empty-dataset",
        "an instance of each series comes as a dataset of zero length, each time",
        "refuses it; retrieves it alone, twice; then the row is partial, with the reason of the refusal",
        lambda: [store_faults.Spoiled(lambda _dataset: b"")],
        rows=(("partial", "some_images_refused"),) * 2,
        stored=(2, 2),
        exit_code=1,
        requests=ArchiveRequests(("STUDY" + " IMAGE:1" * 4,) * 2, None, None),
    ),
    Scenario(
        24,
        "empty-dataset-once",
        "an instance of each series comes as a dataset of zero length, once",
        "refuses it, and retrieves it again",
        lambda: [store_faults.Spoiled(lambda _dataset: b"", times=1)],
        requests=ArchiveRequests(("STUDY IMAGE:1 IMAGE:1", "STUDY")),
    ),
    Scenario(
        24,
        "group-2-in-the-dataset",
        "elements of group 0002 inside of datasets",
        "stores the bytes as they come",
        lambda: [store_faults.Spoiled(_with_group_2)],
    ),
    Scenario(
        24,
        "other-uid-in-the-dataset",
        "a dataset has another SOP Instance UID than its command, once",
        "refuses it (A900), and retrieves it again",
        lambda: [store_faults.Spoiled(renamed, times=1)],
        requests=ArchiveRequests(("STUDY IMAGE:1 IMAGE:1", "STUDY")),
    ),
    Scenario(
        26,
        "one-at-a-time",
        "one C-MOVE at a time: others are refused with A700; Quarry runs with --parallel 4",
        "halves the moves at once, and backs off; everything comes",
        lambda: [store_faults.Overloaded()],
        studies=EIGHT,
        rows=(COMPLETE,) * 8,
        stored=(1,) * 8,
        options={"parallel": 4},
        requests=ArchiveRequests(None, None, None, at_most=16),
        messages=("at most 2 at once",),
    ),
    Scenario(
        26,
        "dies-under-parallel-moves",
        "the archive aborts every C-MOVE when there are two; Quarry runs with --parallel 4",
        "halves the moves at once until it is one; everything comes",
        lambda: [store_faults.Overloaded(dies=True)],
        studies=EIGHT,
        rows=(COMPLETE,) * 8,
        stored=(1,) * 8,
        options={"parallel": 4},
        requests=ArchiveRequests(None, None, None, at_most=24),
        messages=("at most 2 at once", "at most 1 at once"),
    ),
    Scenario(
        27,
        "particular",
        "associations that offer asynchronous operations, or no PDU maximum, are dropped; its own is 0",
        "offers no asynchronous operations, announces a maximum, and takes 0 for none",
        lambda: [store_faults.Particular()],
    ),
    Scenario(
        28,
        "archive-cannot-reach-us",
        "the archive cannot connect to us (A702, everything failed): a wrong port, a firewall",
        "stops after three studies, and shows what to check; rows stay pending, exit code 4",
        lambda: [faults.AllFailed(0xA702)],
        studies=MORE,
        rows=(PENDING,) * 4,
        stored=(0,) * 4,
        exit_code=4,
        requests=ArchiveRequests(None, None, 3, at_most=15),
    ),
    Scenario(
        28,
        "behind-another-address",
        "instances come from another address than the archive's (NAT, several nodes)",
        "refuses them, and shows the line for quarry.toml that allows them; stops after three studies",
        lambda: [store_faults.Elsewhere()],
        studies=MORE,
        rows=(PENDING,) * 4,
        stored=(0,) * 4,
        exit_code=4,
        requests=ArchiveRequests(None, None, 3, at_most=15),
        messages=("a sender at 127.0.0.9 was refused",),
    ),
    Scenario(
        28,
        "behind-an-address-that-is-named",
        "the same, and quarry.toml names the address (senders)",
        "lets them in",
        lambda: [store_faults.Elsewhere()],
        profile={"senders": ["127.0.0.9/32"]},
    ),
)
