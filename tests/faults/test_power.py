"""The power fails: what was not fsynced is gone, names too, and yet nothing complete is missing."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.errors import QuarryError
from dicom_quarry.extraction import unsynced_files
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.store import file_sync
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.instance_store import InstanceStore
from tests.e2e.command import check_folder, digests
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
    moments = sorted({*commits, *chance.sample(range(1, len(events) + 1), more)})
    for moment, luck in zip(moments, cycle((None, chance))):
        disk = folder / f"disk-{moment}"
        after_power_loss(events[:moment], disk, luck)
        found[moment] = missing(disk)
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
@pytest.mark.parametrize("syncs_whole", [True, False], ids=["all at once", "file by file"])
def test_nothing_complete_is_missing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, syncs_whole: bool
) -> None:
    monkeypatch.setattr(file_sync, "can_sync_whole", lambda _: syncs_whole)
    events = recorded(stage, monkeypatch)
    found = losses(events, stage.folder / "disks", seed=5, more=30)
    assert len(found) > 30
    assert {moment: lost for moment, lost in found.items() if lost} == {}


@dataclass
class Computer:
    """What identifies a start of this computer."""

    start: str = "first start"

    def session(self, _folder: Path) -> tuple[str, str]:
        return self.start, "disk"


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    computer = Computer()
    monkeypatch.setattr(unsynced_files, "writing_session", computer.session)
    return computer


class Torn(random.Random):
    """The worst case: all names are on the disk, and of each file the first half."""

    def randint(self, _least: int, most: int) -> int:
        return most

    def random(self) -> float:
        return 0.5

    def choice(self, options: Any) -> Any:
        return options[2]


def go_on(stage: Stage, events: list[Event], moments: Iterable[int], chance: random.Random) -> list[Stage]:
    """Run the job to its end, once for each of these moments at which the power fails."""
    ended = []
    for moment in moments:
        again = Stage(stage.folder / str(moment))
        again.folder.mkdir()
        after_power_loss(events[:moment], again.out, chance)
        with ScriptedArchive(HELD, destinations={"QUARRY": ("127.0.0.1", again.port)}) as archive:
            result = again.extract(by_accession(HELD), {"main": address(archive)}, {}, archive_moved=True)
        assert outcomes(result) == [COMPLETE] * 4
        ended.append(again)
    return ended


def acknowledged(events: list[Event]) -> list[int]:
    """The moments at which an instance has just got its name, and is not durable."""
    return [number + 1 for number, event in enumerate(events, 1) if event.kind == "written"]


def test_a_job_goes_on_after_the_power_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, computer: Computer
) -> None:
    events = recorded(stage, monkeypatch)
    computer.start = "second start"
    moments = acknowledged(events)
    assert len(moments) >= 16
    ended = go_on(stage, events, moments[2::5], random.Random(6))
    ended += go_on(stage, events, moments[3:4], Torn())
    for again in ended:
        check_folder(again.out)
        assert digests(again.out) == digests(stage.out), "nothing that was torn is taken for whole"


def test_files_that_are_torn_are_found_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, computer: Computer
) -> None:
    """The same, but nothing shows that the computer was restarted."""
    events = recorded(stage, monkeypatch)
    (again,) = go_on(stage, events, acknowledged(events)[3:4], Torn())
    assert digests(again.out) != digests(stage.out)


def test_a_job_that_ended_in_order_has_left_nothing_unsynced(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, computer: Computer
) -> None:
    written: list[str] = []
    real = Ledger.set_metadata

    def setting(ledger: Ledger, **values: str) -> None:
        written.extend(value for name, value in values.items() if name == "writers")
        real(ledger, **values)

    monkeypatch.setattr(Ledger, "set_metadata", setting)
    recorded(stage, monkeypatch)
    assert written == ['{"first start": "disk"}', "{}"]


def nothing(*_: Any) -> None:
    pass


def written_without_sync(_directory: int, _name: str) -> None:
    return None


@pytest.mark.parametrize("broken", ["all", "names", "content"])
def test_a_store_that_does_not_sync_is_found_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(file_sync, "can_sync_whole", lambda _: broken == "all")
    if broken == "all":
        monkeypatch.setattr(InstanceStore, "sync", nothing)
    elif broken == "names":
        monkeypatch.setattr(Directories, "sync", nothing)
    else:
        monkeypatch.setattr(file_sync, "_sync_file", written_without_sync)
    events = recorded(stage, monkeypatch)
    assert any(losses(events, stage.folder / "disks", seed=5, more=0).values())
