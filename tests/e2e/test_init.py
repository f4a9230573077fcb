"""The first quarry.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import DEFAULT_FILEPATH, DEFAULT_LOCAL, load_settings
from dicom_quarry.config.toml_file import read_toml
from tests.config.test_niffler import files
from tests.e2e.command import quarry
from tests.e2e.test_terminal import Terminal

PACS = "PACS@10.1.2.3:104"


def test_without_a_terminal_nothing_is_asked(work: Path) -> None:
    assert quarry("init").code == 0
    text = (work / "quarry.toml").read_text()
    assert read_toml(work / "quarry.toml")["as"] == DEFAULT_LOCAL
    # What is not known stands there as a comment, and works once the mark is gone.
    done = quarry("check")
    assert (done.code, "which archive?" in done.err) == (2, True)
    (work / "quarry.toml").write_text(
        text.replace("# from", "from").replace("# [a", "[a").replace("# a", "a")
    )
    assert str(load_settings(None, {}).archives[0].address) == PACS


def test_it_does_not_overwrite(work: Path) -> None:
    (work / "quarry.toml").write_text("# mine\n")
    done = quarry("init")
    assert done.code == 2
    assert "exists already" in done.err
    assert (work / "quarry.toml").read_text() == "# mine\n"


def asked(*answers: tuple[str, str]) -> str:
    """What ``quarry init`` shows at a terminal where these are typed when these are shown."""
    terminal = Terminal("init")
    try:
        for question, answer in answers:
            terminal.wait_for(question)
            terminal.type(f"{answer}\n")
        assert terminal.end() == 0
    finally:
        terminal.child.kill()
        terminal.child.wait()
    return terminal.shown


def profile() -> ArchiveProfile:
    (one,) = load_settings(None, {}).archives
    return one


def test_at_a_terminal(work: Path) -> None:
    shown = asked(
        ("Archive", "10.1.2.3"),
        ("is not an archive", PACS),
        ("receiver", ""),
        ("Output folder", "/data/out"),
        ("Hours", "nights"),
        ("is not a window", "19:00-07:00"),
    )
    assert "quarry check --from main" in shown
    settings = load_settings(None, {})
    assert (str(profile().address), profile().window) == (PACS, "19:00-07:00")
    assert (str(settings.local), settings.to) == (DEFAULT_LOCAL, Path("/data/out"))


def test_no_window_is_an_answer(work: Path) -> None:
    asked(("Archive", PACS), ("receiver", "ME:104"), ("Output folder", ""), ("Hours", "none"))
    assert profile().window is None
    assert "# none: any hour" in (work / "quarry.toml").read_text()


@pytest.mark.parametrize("pattern", ["{00080018}.dcm", "CFIND-ONLY"])
def test_taken_over(work: Path, pattern: str) -> None:
    (work / "old").mkdir()
    files(work / "old", {"FilePath": pattern, "Colour": 1})
    done = quarry("init", "--from-niffler", "old/config.json")
    assert done.code == 0
    assert "cohort: /opt/data/cohort.csv; column 1 is PatientID, column 2 is AccessionNumber" in done.out
    assert "note: config.json: 'Colour' is unknown" in done.out
    assert ("The command for that is: quarry plan" in done.out) is (pattern == "CFIND-ONLY")
    settings = load_settings(None, {})
    assert (str(profile().address), profile().window) == (PACS, "19:00-07:00")
    assert (str(settings.local), settings.to) == ("QBNIFFLER:4243", Path("/opt/data/new-study"))
    assert settings.notify.mail_to == ("somebody@hospital.example",)
    assert settings.filepath == (pattern if "dcm" in pattern else DEFAULT_FILEPATH)
    assert (
        "# Note: config.json: somebody@hospital.example gets a mail when the job has ended"
        in (work / "quarry.toml").read_text()
    )
