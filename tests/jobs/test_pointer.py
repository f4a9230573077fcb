"""The file by which a folder names its job in a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.cluster.pointer import read_pointer


def test_the_folder_of_another_user_names_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)  # root may read everything
    with pytest.raises(
        InputError, match=r"has a job of another user of the system.*type the command as that user"
    ):
        read_pointer(tmp_path)
