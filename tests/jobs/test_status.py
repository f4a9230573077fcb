"""The progress file of a job, which another user may have written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.place import Holder
from dicom_quarry.jobs.status import _read_progress


def read(tmp_path: Path, text: str) -> dict[str, object]:
    (tmp_path / "progress.json").write_text(text)
    return _read_progress(LocalPlace(tmp_path, tmp_path), Holder(4711))


def test_what_quarry_wrote_is_read(tmp_path: Path) -> None:
    study = {"row": 1, "stored": 2, "listed": 3, "task_id": 1}
    written = {"bytes_per_second": 1.5, "seconds_left": 60.0, "active_studies": [study]}
    found = read(tmp_path, json.dumps({"process": 4711, "waiting_for": "the window", **written}))
    assert found == {"queued": False, "stopping": False, "waiting_for": "the window", **written}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[" * 100_000,
        json.dumps({"process": 1}),
        json.dumps({"process": 4711, "waiting_for": "\x1b]0;x", "active_studies": 3, "seconds_left": "x"}),
        json.dumps({"process": 4711, "active_studies": [{"row": "x"}, 1], "bytes_per_second": float("inf")}),
    ],
)
def test_what_another_user_wrote_is_data(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert "\x1b" not in str(found.get("waiting_for"))
    assert found.get("active_studies", []) == []
    assert "seconds_left" not in found and "bytes_per_second" not in found


def test_a_pipe_and_a_link_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    os.mkfifo(path)
    assert _read_progress(LocalPlace(tmp_path, tmp_path), Holder(4711)) == {}
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert _read_progress(LocalPlace(tmp_path, tmp_path), Holder(4711)) == {}
