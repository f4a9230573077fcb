"""A disk that fails, and a clock that is wrong or jumps: a library that is loaded before C's plays both."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import MoveOperation
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.system.file_systems import can_sync_whole
from tests.e2e.command import quarry as quarry_elsewhere
from tests.hostile.test_low_surroundings import QUARRY, STUDIES, archive, extract, quarry
from tests.scripted.archive import Fault, ScriptedArchive

pytestmark = pytest.mark.hostile

__all__ = ["archive"]

YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile ``preload.c``."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("no C compiler")
    source, library = Path(__file__).with_name("preload.c"), tmp_path_factory.mktemp("preload") / "preload.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("part", ["ledger.db-wal", "ledger.db"])
def test_a_disk_of_the_record_that_fails_is_a_sentence(
    part: str, tmp_path: Path, archive: DemoArchive, preload: Path
) -> None:
    command = extract(tmp_path, archive, tmp_path / "out")
    done = quarry(*command, LD_PRELOAD=str(preload), FAILING_FILES=part)
    assert done.code == 3, done.err
    said = " ".join(done.err.split())
    assert "ledger.db" in said
    assert "disk checked" in said
    assert quarry_elsewhere(*command).code == 0


@pytest.mark.parametrize(
    "failing", [{"FAILING_FILES": "incoming"}, {"FAILING_DISK": "1"}], ids=["write", "sync"]
)
def test_a_disk_of_the_images_that_fails_loses_nothing(
    failing: dict[str, str], tmp_path: Path, archive: DemoArchive, preload: Path
) -> None:
    if "FAILING_DISK" in failing and not can_sync_whole(tmp_path):
        pytest.skip("this file system is not synced as a whole")
    command = extract(tmp_path, archive, tmp_path / "out")
    with subprocess.Popen(
        [*QUARRY, *map(str, command)],
        env={**os.environ, "LD_PRELOAD": str(preload), **failing},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert any("the disk failed: Input/output error" in line for line in child.stdout)
        child.terminate()
        child.stdout.read()
    assert child.returncode == 4
    assert not list((tmp_path / "out").rglob("*.dcm"))
    assert quarry_elsewhere(*command).code == 0


@pytest.mark.parametrize("offset", [-26 * YEAR, 40 * YEAR], ids=["behind", "ahead"])
def test_a_clock_that_is_wrong_and_then_right(
    offset: int, tmp_path: Path, archive: DemoArchive, preload: Path
) -> None:
    out, clock = tmp_path / "out", tmp_path / "clock"
    clock.write_text(f"{offset}\n")
    wrong = {"LD_PRELOAD": str(preload), "CLOCK_OFFSET": str(clock)}
    assert quarry(*extract(tmp_path, archive, out), **wrong).code == 0
    for command in ("status", "verify", "report"):
        assert quarry_elsewhere(command, out).code == 0
        assert quarry(command, out, **wrong).code == 0


@pytest.mark.parametrize("jump", [-YEAR, YEAR], ids=["back", "forward"])
def test_a_clock_that_jumps_while_a_study_comes(jump: int, tmp_path: Path, preload: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0\n")

    class Jump(Fault):
        def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
            clock.write_text(f"{jump}\n")
            return False

    with ScriptedArchive(STUDIES, faults=[Jump()]) as archive:
        done = quarry(
            *extract(tmp_path, archive, tmp_path / "out"), LD_PRELOAD=str(preload), CLOCK_OFFSET=str(clock)
        )
    assert done.code == 0, done.err
    assert quarry_elsewhere("status", tmp_path / "out").code == 0
