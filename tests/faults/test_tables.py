"""Tables in doubt, against the whole product: refused before the archive is queried, or read as shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dicom_quarry.errors import InputError
from tests.faults.scenario_runner import Stage, address, stored
from tests.faults.table_faults import SCENARIOS, STUDIES, TableFault
from tests.scripted.archive import ScriptedArchive


def _play(one: TableFault, stage: Stage, options: Mapping[str, object], expected: tuple[int, ...]) -> None:
    with ScriptedArchive(STUDIES, destinations={"QUARRY": ("127.0.0.1", stage.port)}) as archive:
        stage.extract(one.table, {"main": address(archive)}, {}, **options)
        moved = {seen.keys.get("StudyInstanceUID", "") for seen in archive.log if seen.kind == "move"}
    print(*stage.messages, sep="\n")
    assert stored(stage.out, STUDIES) == (*expected, 0)
    assert moved == {study.study_uid for study, count in zip(STUDIES, expected, strict=True) if count}


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_fault(one: TableFault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage = Stage(tmp_path)
    if one.refused:
        with ScriptedArchive(STUDIES) as archive:
            with pytest.raises(InputError) as caught:
                stage.extract(one.table, {"main": address(archive)}, {})
            assert not [seen for seen in archive.log if seen.kind in ("find", "move")]
        assert one.refused in str(caught.value)
        assert stored(stage.out, STUDIES) == (0, 0, 0, 0)
    else:
        _play(one, stage, {}, one.stored)
        assert one.note in "\n".join(stage.notes)
    for number, (options, expected) in enumerate(one.with_options):
        folder = tmp_path / str(number)
        folder.mkdir()
        _play(one, Stage(folder), options, expected)
