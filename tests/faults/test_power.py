"""The power fails: what was not fsynced is gone, names too, and yet nothing complete is missing."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.errors import QuarryError
from dicom_quarry.store.instance_store import InstanceStore
from tests.e2e.command import check_folder
from tests.faults.documented_tests import shows
from tests.faults.power_loss import Event, Recorder, after_power_loss
from tests.faults.scenario import COMPLETE, by_accession
from tests.faults.scenario_runner import Stage, address, outcomes
from tests.scripted import faults
from tests.scripted.archive import ScriptedArchive

HELD = tuple(generate_studies(4, seed=12, series=2, images=2))


def recorded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """A whole job, with a study that comes in two halves and one that is cut off."""
    switched_on = [faults.HalfSent(times=1), faults.Lose(3, times=1).after(1)]
    recorder = Recorder(stage.out)
    stage.out.mkdir()
    with (
        ScriptedArchive(HELD, switched_on, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive,
        monkeypatch.context() as patched,
    ):
        recorder.install(patched.setattr)
        result = stage.extract(by_accession(HELD), {"main": address(archive)}, {})
    assert outcomes(result) == [COMPLETE] * 4
    return recorder.events


def losses(events: list[Event], folder: Path, *, seed: int, more: int) -> dict[int, list[str]]:
    """At every commit, and at ``more`` random moments: what is complete in the ledger, and not whole."""
    chance = random.Random(seed)
    commits = [number for number, event in enumerate(events, start=1) if event.kind == "ledger"]
    found: dict[int, list[str]] = {}
    for moment in sorted({*commits, *chance.sample(range(1, len(events) + 1), more)}):
        for luck in (None, chance):
            disk = folder / f"disk-{moment}-{luck is None}"
            after_power_loss(events[:moment], disk, luck)
            problems = missing(disk)
            found[moment] = found.get(moment, []) + problems
    return found


def missing(disk: Path) -> list[str]:
    """Files of concluded studies that are missing or damaged."""
    try:
        return [str(one.file.path) for one in api.verify(disk) if one.problem]
    except QuarryError:
        return []  # the power failed before there was a job


@shows(
    0,
    "the power fails: what was not fsynced is gone, names too (simulated, see tests/faults/power.py)",
    "nothing that is complete in the ledger is missing on the disk; the same command goes on",
)
def test_nothing_complete_is_missing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded(stage, monkeypatch)
    found = losses(events, stage.folder / "disks", seed=5, more=30)
    assert len(found) > 30
    assert {moment: lost for moment, lost in found.items() if lost} == {}


def test_a_job_goes_on_after_the_power_failed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded(stage, monkeypatch)
    chance = random.Random(6)
    for moment in (len(events) // 3, 2 * len(events) // 3):
        again = Stage(stage.folder / str(moment))
        again.folder.mkdir()
        after_power_loss(events[:moment], again.out, chance)
        with ScriptedArchive(HELD, destinations={"QUARRY": ("127.0.0.1", again.port)}) as archive:
            result = again.extract(by_accession(HELD), {"main": address(archive)}, {}, archive_moved=True)
        assert outcomes(result) == [COMPLETE] * 4
        check_folder(again.out)


def nothing(*_: Any) -> None:
    pass


@pytest.mark.parametrize(
    "broken",
    [
        lambda change: change(InstanceStore, "sync_directories", nothing),
        lambda change: change(os, "fdatasync", nothing),
    ],
    ids=["names", "content"],
)
def test_a_store_that_does_not_sync_is_found_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Any], None]
) -> None:
    broken(monkeypatch.setattr)
    recorder_of = Recorder.install

    def install(recorder: Recorder, change: Any) -> None:
        recorder_of(recorder, change)
        broken(change)

    monkeypatch.setattr(Recorder, "install", install)
    events = recorded(stage, monkeypatch)
    assert any(losses(events, stage.folder / "disks", seed=5, more=0).values())
