"""What our own store refuses is the reason of the study, in messages, report and explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.errors import InstanceRefused, OutOfSpace
from dicom_quarry.model import InstanceInfo, Writer
from dicom_quarry.store.instance_store import InstanceStore
from tests.faults.scenario import STUDIES, by_accession
from tests.faults.scenario_runner import Stage, address, outcomes, stored
from tests.scripted.archive import ScriptedArchive

NAME = "Doe^John"
#: Words that blame the archive for it.
BLAME = ("archive is busy", "not available", "PACS team", "firewall")


def extract(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, *, times: int, retrieve: str
) -> tuple[Stage, Any, int]:
    """Run a job whose store fails so often; also the number of retrievals of the first study."""
    begin, left = InstanceStore.begin, times

    def fail(store: InstanceStore, arrival: InstanceInfo) -> Writer:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error
        return begin(store, arrival)

    monkeypatch.setattr(InstanceStore, "begin", fail)
    stage = Stage(folder)
    with ScriptedArchive(STUDIES, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        profile = {"retrieve": retrieve}
        result = stage.extract(by_accession(STUDIES), {"main": address(archive)}, profile)
        moves = [seen for seen in archive.log if seen.kind in ("move", "get")]
    return stage, result, len(moves)


@pytest.mark.parametrize("retrieve", ["move", "get"])
@pytest.mark.parametrize(
    ("error", "words", "most_requests"),
    [
        (OutOfSpace("there is no space left on the disk"), "there is no space left on the disk", 12),
        (InstanceRefused("it is not what was announced", status=0xA900), "not what was announced", 2),
        (InstanceRefused("the disk failed: I/O error", status=0x0110), "the disk failed: I/O error", 12),
        (ValueError(NAME), "it could not be stored (ValueError)", 12),
    ],
    ids=["full-disk", "other-uid", "disk-error", "defect"],
)
def test_nothing_is_stored_for_a_reason_of_our_own(
    error: Exception,
    words: str,
    most_requests: int,
    retrieve: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, result, requests = extract(tmp_path, monkeypatch, error, times=10**6, retrieve=retrieve)
    assert outcomes(result) == [("failed", "images_refused")] * 2
    assert requests <= 2 * most_requests
    for row in result.rows():
        assert row.outcome.reason.startswith("Quarry's own receiver refused the images: ")
        assert words in row.outcome.reason
        assert not [blame for blame in BLAME if blame in row.outcome.reason]
    said = "\n".join(stage.messages)
    assert words in said and NAME not in said
    assert not [blame for blame in BLAME if blame in said]


def test_a_disk_that_was_full_for_a_while_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OutOfSpace("there is no space left on the disk")
    stage, result, _ = extract(tmp_path, monkeypatch, error, times=9, retrieve="move")
    assert outcomes(result) == [("complete", "all_listed_stored")] * 2
    assert stored(stage.out, STUDIES) == (4, 4, 0)


def test_some_instances_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = next(iter(STUDIES[0].instances())).sop_uid
    begin = InstanceStore.begin

    def fail(store: InstanceStore, arrival: InstanceInfo) -> Writer:
        if arrival.sop_uid == refused:
            raise InstanceRefused("too many versions", status=0xA900)
        return begin(store, arrival)

    monkeypatch.setattr(InstanceStore, "begin", fail)
    stage = Stage(tmp_path)
    with ScriptedArchive(STUDIES, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        result = stage.extract(by_accession(STUDIES), {"main": address(archive)}, {})
    assert outcomes(result) == [("partial", "some_images_refused"), ("complete", "all_listed_stored")]
    reason = next(iter(result.rows())).outcome.reason
    assert "1 instance of 4 missing" in reason and "too many versions" in reason
