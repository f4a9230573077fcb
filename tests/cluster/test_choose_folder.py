"""The folder of a job with a name, where the command names none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_quarry.api.extraction import load_extract_settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.workers import Registration

FLAGS = {"job": "trial", "from": "PACS@h:1"}


@pytest.fixture
def settings(url: str, tmp_path: Path) -> Path:
    """The settings of a database with workers of two roots."""
    with Cluster(url).connected() as connection:
        for name in ("a", "b"):
            Registration(name, name, f"{name}:1", f"/data/{name}").enter(connection)
    path = tmp_path / "settings.toml"
    path.write_text(f'[cluster]\nledger = "{url}"\n')
    return path


def test_of_several_roots_none_is_chosen(settings: Path) -> None:
    with pytest.raises(ConfigError, match="/data/a, /data/b"):
        load_extract_settings(settings, FLAGS)


def test_the_folder_of_the_settings_is_used(settings: Path) -> None:
    settings.write_text(f'to = "/data/b/mine"\n{settings.read_text()}')
    assert load_extract_settings(settings, FLAGS).to == Path("/data/b/mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_that_is_trusted_is_trusted_here_too(settings: Path) -> None:
    settings.write_text(f'on-complete = "date"\nto = "/data/b/mine"\n{settings.read_text()}')
    os.chown(settings, 12345, 12345)
    with pytest.raises(ConfigError, match="trust-owner"):
        load_extract_settings(settings, FLAGS)
    assert load_extract_settings(settings, {**FLAGS, "trust_owner": True}).on_complete
