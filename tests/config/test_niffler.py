"""The former extractor's two files, key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry.config import niffler
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE

SYSTEM: dict[str, Any] = {
    "DCM4CHEBin": "/opt/dcm4che-5.22.5/bin",
    "SrcAet": "PACS@10.1.2.3:104",
    "QueryAet": "QBNIFFLER:4243",
    "DestAet": "QBNIFFLER",
    "NightlyOnly": True,
    "StartHour": 19,
    "EndHour": 7,
    "NifflerID": 1,
    "MaxNifflerProcesses": 2,
}
CONFIG: dict[str, Any] = {
    "NifflerSystem": "system.json",
    "StorageFolder": "/opt/data/new-study",
    "FilePath": "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm",
    "CsvFile": "/opt/data/cohort.csv",
    "NumberOfQueryAttributes": 2,
    "FirstAttr": "PatientID",
    "FirstIndex": 0,
    "SecondAttr": "AccessionNumber",
    "SecondIndex": 1,
    "ThirdAttr": "StudyDate",
    "ThirdIndex": 2,
    "LongAccession": True,
    "DateFormat": "%Y-%m-%d",
    "SendEmail": True,
    "YourEmail": "somebody@hospital.example",
}


def files(folder: Path, config: dict[str, Any] | None = None, system: dict[str, Any] | None = None) -> Path:
    """config.json and system.json with changes; None takes a key out."""
    for name, values, changes in (("config", CONFIG, config or {}), ("system", SYSTEM, system or {})):
        merged = {key: value for key, value in {**values, **changes}.items() if value is not None}
        (folder / f"{name}.json").write_text(json.dumps(merged), encoding="utf-8-sig")
    return folder / "config.json"


def test_every_key(tmp_path: Path) -> None:
    found = niffler.load_niffler_config(files(tmp_path))
    assert found.flags == {
        "from": "PACS@10.1.2.3:104",
        "as": "QBNIFFLER:4243",
        "to": "/opt/data/new-study",
        "filepath": CONFIG["FilePath"],
    }
    assert found.window == "19:00-07:00"
    assert found.cohort_file == Path("/opt/data/cohort.csv")
    assert found.columns == {0: "PatientID", 1: "AccessionNumber"}  # two of the three that are named
    assert (found.date_format, found.long_accession, found.plan_mode) == ("%Y-%m-%d", True, "")
    told = "\n".join(found.notes)
    assert found.mail_to == "somebody@hospital.example"
    assert "somebody@hospital.example gets a mail when the job has ended (SendEmail)" in told
    for name in ("MaxNifflerProcesses", "DCM4CHEBin", "NifflerID"):
        assert f"'{name}'" in told
    assert "is unknown" not in told


def test_settings_of_a_job(tmp_path: Path) -> None:
    settings = niffler.load_niffler_config(files(tmp_path)).to_settings({"parallel": 2, "to": None})
    assert settings.archives[0].address == AE("PACS", "10.1.2.3", 104)
    assert settings.archives[0].window == "19:00-07:00"
    assert (settings.local, settings.to) == (AE("QBNIFFLER", "", 4243), Path("/opt/data/new-study"))
    assert settings.parallel == 2
    assert settings.notify.mail_to == ("somebody@hospital.example",)
    assert (settings.notify.smtp, settings.notify.security) == ("localhost:25", "none")


@pytest.mark.parametrize("config", [{"SendEmail": False}, {"YourEmail": None}])
def test_nobody_to_tell(tmp_path: Path, config: dict[str, Any]) -> None:
    found = niffler.load_niffler_config(files(tmp_path, config))
    assert found.to_settings().notify.mail_to == ()
    assert any("no mail will be sent" in note for note in found.notes) is (config != {"SendEmail": False})


def test_what_may_be_missing(tmp_path: Path) -> None:
    optional = ["FilePath", "LongAccession", "DateFormat", "SendEmail", "YourEmail", "NifflerSystem"]
    unset = ["DCM4CHEBin", "NightlyOnly", "StartHour", "EndHour", "NifflerID", "MaxNifflerProcesses"]
    found = niffler.load_niffler_config(files(tmp_path, dict.fromkeys(optional), dict.fromkeys(unset)))
    assert (found.date_format, found.long_accession, found.notes) == ("%Y%m%d", False, ())
    assert found.window == "19:00-07:00"  # nightly only is that extractor's default
    assert found.flags["filepath"] == CONFIG["FilePath"]


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    found = niffler.load_niffler_config(files(tmp_path, {"StorageFolder": "data", "CsvFile": "csv/a.csv"}))
    assert (found.flags["to"], found.cohort_file) == (str(tmp_path / "data"), tmp_path / "csv" / "a.csv")


@pytest.mark.parametrize(("pattern", "plan"), [("CFIND-ONLY", "plain"), ("CFIND-DETAILED", "detailed")])
def test_queries_alone_are_a_plan(tmp_path: Path, pattern: str, plan: str) -> None:
    found = niffler.load_niffler_config(files(tmp_path, {"FilePath": pattern}))
    assert found.plan_mode == plan
    assert "filepath" not in found.flags


@pytest.mark.parametrize(
    ("system", "window"),
    [
        ({"NightlyOnly": False}, None),
        ({"NightlyOnly": "False"}, None),
        ({"NightlyOnly": "True", "StartHour": "20", "EndHour": "6"}, "20:00-06:00"),
        ({"StartHour": 0, "EndHour": 24}, "00:00-24:00"),
    ],
)
def test_the_window(tmp_path: Path, system: dict[str, Any], window: str | None) -> None:
    assert niffler.load_niffler_config(files(tmp_path, system=system)).window == window


def test_somebody_elses_receiver(tmp_path: Path) -> None:
    found = niffler.load_niffler_config(files(tmp_path, system={"DestAet": "ARCHIVE2"}))
    (note,) = [note for note in found.notes if "DestAet" in note]
    assert "went to ARCHIVE2 (DestAet), a separate receiver" in note
    assert "register QBNIFFLER (QueryAet) as a destination" in note
    assert found.flags["as"] == "QBNIFFLER:4243"


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    notes = niffler.load_niffler_config(files(tmp_path, {"Colour": 1}, {"Speed": 2})).notes
    assert notes[:2] == (
        "config.json: 'Colour' is unknown and has no effect",
        "system.json: 'Speed' is unknown and has no effect",
    )


@pytest.mark.parametrize(
    ("config", "system", "message"),
    [
        ({}, {"SrcAet": None}, "'SrcAet' is missing"),
        ({"YourEmail": "somebody"}, {}, "'YourEmail': mail-to.0: write an e-mail address"),
        ({}, {"SrcAet": "10.1.2.3"}, "is not an archive"),
        ({}, {"QueryAet": "QBNIFFLER"}, "is not a receiver"),
        ({}, {"StartHour": 25}, "'StartHour' must be a number from 0 to 23"),
        ({}, {"StartHour": 7, "EndHour": 7}, "is empty"),
        ({}, {"NightlyOnly": "perhaps"}, "'NightlyOnly' must be true or false"),
        ({"CsvFile": None}, {}, "'CsvFile' is missing"),
        ({"CsvFile": 7}, {}, "'CsvFile' is missing or not text"),
        ({"NumberOfQueryAttributes": 4}, {}, "'NumberOfQueryAttributes' must be a number from 0 to 3"),
        ({"NumberOfQueryAttributes": 0}, {}, "'NumberOfQueryAttributes' must be 1, 2 or 3"),
        ({"SecondAttr": "Patient"}, {}, "'SecondAttr' is not a DICOM keyword"),
        ({"SecondIndex": None}, {}, "'SecondIndex' must be a number"),
        ({"SecondIndex": 0}, {}, "repeats a column"),
        ({"NifflerSystem": "other.json"}, {}, "cannot be read"),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, config: dict[str, Any], system: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        niffler.load_niffler_config(files(tmp_path, config, system))


@pytest.mark.parametrize("text", ["", "[1]", "{'a': 1}"])
def test_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json is not"):
        niffler.load_niffler_config(tmp_path / "config.json")


def test_study_month(tmp_path: Path) -> None:
    changed = {"NumberOfQueryAttributes": "1", "FirstAttr": "StudyMonth", "FirstIndex": "3"}
    assert niffler.load_niffler_config(files(tmp_path, changed)).columns == {3: "StudyMonth"}
