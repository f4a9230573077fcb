"""Compare the documents with the code."""

from __future__ import annotations

import re
from pathlib import Path

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.cluster import ClusterSettings
from dicom_quarry.config.credentials import HttpSettings, TlsFiles
from dicom_quarry.config.notifications import NotificationSettings
from dicom_quarry.config.settings import Settings
from dicom_quarry.model import OutcomeStatus

ROOT = Path(__file__).parent.parent.parent


def test_every_setting_is_explained() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    names = {
        *ArchiveProfile.model_fields,
        *Settings.model_fields,
        *TlsFiles.model_fields,
        *HttpSettings.model_fields,
        *NotificationSettings.model_fields,
        *ClusterSettings.model_fields,
    }
    names -= {"name", "archives", "local", "tls", "notify", "cluster"}
    missing = {name for name in names if f"`{name.replace('_', '-')}`" not in text and f"`{name}" not in text}
    assert not missing


def test_every_outcome_is_explained() -> None:
    text = (ROOT / "README.md").read_text()
    assert not [word for word in OutcomeStatus if f"| {word} |" not in text]


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


def test_paths_that_are_named_exist() -> None:
    for name in ("architecture.md", "contributing.md"):
        page = (ROOT / "docs" / name).read_text()
        paths = [path for path in re.findall(r"`(\w+/[\w./]+)`", page) if "NAME" not in path]
        assert len(paths) > 10
        places = (ROOT, ROOT / "src" / "dicom_quarry")
        assert not [path for path in paths if not any((place / path).exists() for place in places)], name
