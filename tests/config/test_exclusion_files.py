"""The setting ``exclude``: a path, or a table with a file and decisions about its columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.config import site_policy
from dicom_quarry.config.exclusion_files import ExclusionFile
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.config.site_policy import load_site_policy
from dicom_quarry.errors import ConfigError


def load(folder: Path, exclude: str, *given: Path) -> Settings:
    path = folder / "quarry.toml"
    path.write_text(f'from = "PACS@127.0.0.1:104"\nto = "out"\nexclude = {exclude}\n')
    return load_settings(path, {"exclude": list(given) or None})


def test_texts_and_tables_side_by_side(tmp_path: Path) -> None:
    settings = load(tmp_path, '["/a.csv", {file = "/b.csv", ignore = ["MRN*"]}]', Path("/c.csv"))
    assert settings.exclude == (
        ExclusionFile(file=Path("/a.csv")),
        ExclusionFile(file=Path("/b.csv"), ignore=("MRN*",)),
        ExclusionFile(file=Path("/c.csv")),
    )
    assert Settings.model_validate_json(settings.model_dump_json()).exclude == settings.exclude


def test_one_text_or_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(tmp_path, '"a.csv"').exclude == (ExclusionFile(file=tmp_path / "a.csv"),)
    (one,) = load(tmp_path, '{file = "a.csv", ignore = "ID", verbatim = "MRN"}').exclude
    assert one == ExclusionFile(file=tmp_path / "a.csv", ignore=("ID",), verbatim=("MRN",))


def test_the_decisions_of_the_file_hold_for_the_option(tmp_path: Path) -> None:
    settings = load(tmp_path, '[{file = "/b.csv", ignore = ["MRN*"]}]', Path("/b.csv"))
    assert settings.exclude == (ExclusionFile(file=Path("/b.csv"), ignore=("MRN*",)),)


def test_the_settings_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    recorded = load(tmp_path, '["/a.csv"]').model_dump(mode="json") | {"exclude": ["/a.csv"]}
    assert Settings.model_validate(recorded).exclude == (ExclusionFile(file=Path("/a.csv")),)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ('[{ignore = ["MRN*"]}]', "exclude: write"),
        ("[7]", "exclude: write"),
        (
            '[{file = "a.csv", ignor = ["MRN*"]}]',
            "exclude: 'ignor' is not a setting. Known settings: file, ignore",
        ),
        ('[{file = "a.csv", ignore = [7]}]', "exclude: ignore.0"),
        ('[{file = "a.csv", ignore = [""]}]', "exclude: ignore.0"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exclude: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, exclude)
    assert message in str(refused.value)
    monkeypatch.setattr(site_policy, "SITE_POLICY_FILE", tmp_path / "site.toml")
    (tmp_path / "site.toml").write_text(f"exclude = {exclude}\n")
    with pytest.raises(ConfigError) as refused:
        load_site_policy()
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "site.toml"))


def test_the_site_decides_for_its_own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_policy, "SITE_POLICY_FILE", tmp_path / "site.toml")
    (tmp_path / "site.toml").write_text('exclude = ["/a.csv", {file = "/b.csv", ignore = ["ID"]}]\n')
    assert load_site_policy().exclude == (
        ExclusionFile(file=Path("/a.csv")),
        ExclusionFile(file=Path("/b.csv"), ignore=("ID",)),
    )
