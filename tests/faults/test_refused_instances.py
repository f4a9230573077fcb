"""What our own store refuses is stated as that, by instance: in report, missing.csv and explain."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable
from contextlib import closing

import pytest

from dicom_quarry import api
from tests.faults.documented_tests import shows
from tests.faults.instance_faults import renamed
from tests.faults.scenario import STUDIES, by_accession
from tests.faults.scenario_runner import Stage, address, outcomes
from tests.scripted.archive import ScriptedArchive
from tests.scripted.store_faults import Spoiled

ONE = STUDIES[:1]


@shows(
    24,
    "an instance of each series comes with another SOP Instance UID, or under a wrong label, each time",
    "the report, missing.csv and explain name the reason of our own store, by instance",
)
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (renamed, "the dataset has another SOP Instance UID than announced"),
        (zlib.compress, "(the sender labelled it as Explicit VR Little Endian)"),
    ],
    ids=["other-uid", "wrong-label"],
)
def test_the_reason_of_our_own_store_is_named(
    stage: Stage, change: Callable[[bytes], bytes], why: str
) -> None:
    destinations = {"QUARRY": ("127.0.0.1", stage.port)}
    with ScriptedArchive(ONE, [Spoiled(change)], destinations=destinations) as archive:
        result = stage.extract(by_accession(ONE), {"main": address(archive)}, {})
    assert outcomes(result) == [("partial", "some_images_refused")]
    assert why in next(iter(result.rows())).outcome.reason
    with (stage.out / "missing.csv").open(newline="") as stream:
        missing = list(csv.DictReader(stream))
    refused = {instance.sop_uid for instance in ONE[0].instances() if instance.number == 1}
    assert {line["sop_uid"] for line in missing} == refused
    assert all(line["reason"].startswith("Quarry's own receiver refused it: ") for line in missing)
    assert all(why in line["reason"] for line in missing)
    with closing(api.open_history(stage.out)) as reader:
        studies = list(reader.study_histories_of_rows([1]))
        text = "\n".join(api.explain_lines([], studies, with_identifiers=False))
    assert all(f"{uid}: Quarry's own receiver refused it" in text for uid in refused)
