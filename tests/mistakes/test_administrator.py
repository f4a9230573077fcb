"""What a PACS administrator forbids, and a user tries: one sentence, and the next step works."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_quarry.config import site_policy
from tests.mistakes.commands import Shell

ONE = "Accession\nQA00003\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site's policy, still without a file."""
    path = tmp_path / "etc" / "site.toml"
    path.parent.mkdir()
    monkeypatch.setattr(site_policy, "SITE_POLICY_FILE", path)
    return path


def closed_window() -> str:
    """Settings with a window of one minute, two days ago by its weekday: never open in these tests."""
    day = datetime.now(UTC) - timedelta(days=2)
    return f'window = "{day:%a} 00:00-00:01"\ntime-zone = "UTC"\n'


def settings(shell: Shell, *lines: str) -> None:
    """Write quarry.toml with the archive as ``main``."""
    text = [f'[archive.main]\naddress = "{shell.remote}"', *lines]
    (shell.folder / "quarry.toml").write_text("\n".join(text) + "\n")


# -- C-GET


def test_c_get_that_the_site_forbids_is_refused_by_name(shell: Shell, site: Path) -> None:
    site.write_text('retrieve = ["move"]\n')
    shell.table(ONE)
    gets = sum(shell.archive.gets.values())
    done = shell.extract("--retrieve", "get")
    assert done.code == 2
    assert (
        f"{site}: this site does not allow C-GET from the archive {shell.remote}. Allowed: C-MOVE"
        in done.text
    )
    assert "without retrieve in quarry.toml and without --retrieve" in done.text
    assert not shell.out.exists()
    assert shell.extract().code == 0, "the next step"
    assert sum(shell.archive.gets.values()) == gets


def test_a_site_that_forbids_c_get_for_one_archive(shell: Shell, site: Path) -> None:
    site.write_text(f'[archive."{shell.remote}"]\nretrieve = "move"\n')
    shell.table(ONE)
    assert "does not allow C-GET" in shell.extract("--retrieve", "get").text
    done = shell.extract()
    assert done.code == 0
    assert "images by C-MOVE alone" in done.text


def test_where_c_move_fails_nothing_falls_back_to_a_forbidden_c_get(shell: Shell, site: Path) -> None:
    site.write_text('retrieve = ["move", "wado"]\n')
    shell.table(ONE)
    shell.archive.destinations.pop("QUARRY")
    gets = sum(shell.archive.gets.values())
    done = shell.extract()
    assert done.code == 4
    assert "C-GET" not in done.text
    assert sum(shell.archive.gets.values()) == gets
    # The PACS team registers the destination, and the same command goes on.
    shell.archive.destinations["QUARRY"] = ("127.0.0.1", int(shell.local.rpartition(":")[2]))
    assert shell.extract().code == 0


def test_a_check_does_not_try_a_forbidden_c_get(shell: Shell, site: Path) -> None:
    site.write_text('retrieve = "move"\n')
    gets = sum(shell.archive.gets.values())
    done = shell.quarry("check", "--from", shell.remote, "--as", shell.local, "--accession", "QA00003")
    assert done.code == 0, done.text
    assert "C-GET" not in done.text
    assert sum(shell.archive.gets.values()) == gets


def test_a_method_that_does_not_exist_stops_every_job_and_names_the_file(shell: Shell, site: Path) -> None:
    site.write_text('retrieve = ["c-move"]\n')
    shell.table(ONE)
    done = shell.extract()
    assert done.code == 2
    assert str(site) in done.text
    assert "'move', 'get' or 'wado'" in done.text
    site.write_text('retrieve = ["move"]\n')
    assert shell.extract().code == 0


def test_a_site_that_allows_only_what_the_archive_lacks(shell: Shell, site: Path) -> None:
    site.write_text('retrieve = ["wado"]\n')
    shell.table(ONE)
    done = shell.extract()
    assert done.code == 2
    assert "this site does not allow C-MOVE and C-GET from the archive" in done.text
    assert 'with dicomweb = "https://HOST/PATH" in its table' in done.text


# -- the letter


def test_a_letter_outside_the_window_is_written_without_a_request(shell: Shell) -> None:
    settings(shell, closed_window())
    before = shell.archive.finds.total()
    done = shell.quarry("check", "--from", "main", "--as", shell.local, "--letter", "letter.md")
    assert done.code == 0, done.text
    assert "outside the time window" in done.text
    assert "Nothing was sent to it, so the page has no findings" in done.text
    text = (shell.folder / "letter.md").read_text()
    assert "Register QUARRY as a C-MOVE destination" in text
    assert "## What `quarry check` found" not in text
    assert shell.archive.finds.total() == before


def test_a_check_outside_the_window_names_what_can_be_done_now(shell: Shell) -> None:
    settings(shell, closed_window())
    words = ("check", "--from", "main", "--as", shell.local)
    done = shell.quarry(*words, "--accession", "QA00003", "--letter", "letter.md")
    assert done.code == 3
    assert "add --letter FILE, and leave out --accession, --probe and --save" in done.text
    assert shell.quarry(*words, "--letter", "letter.md").code == 0


def test_a_letter_for_c_get_requests_no_destination(shell: Shell) -> None:
    settings(shell, 'retrieve = "get"', closed_window())
    done = shell.quarry("check", "--from", "main", "--as", shell.local, "--letter", "-")
    assert done.code == 0
    assert "**No C-MOVE destination** and no port of ours is needed" in done.out
    assert "Register" not in done.out
    assert shell.local.rpartition(":")[2] not in done.out, "our port"


def test_a_letter_names_wildcards_that_are_allowed(shell: Shell) -> None:
    settings(shell, closed_window())
    path = shell.folder / "quarry.toml"
    path.write_text("allow-wildcards = true\n" + path.read_text())
    done = shell.quarry("check", "--from", "main", "--as", shell.local, "--letter", "-")
    assert "**wildcards are allowed** (`allow-wildcards`)" in done.out
    assert "never a wildcard" not in done.out


# -- exclusion lists


def test_a_row_on_the_site_s_list_names_the_site(shell: Shell, site: Path) -> None:
    listed = site.parent / "optout.csv"
    listed.write_text("Accession\nQA00004\n")
    site.write_text(f'exclude = ["{listed}"]\n')
    shell.table(ONE + "QA00004\n")
    done = shell.extract()
    assert done.code == 1
    assert f"exclusion list of this site, for every user ({site}): 1 accession" in done.text
    assert "--exclude" not in done.text
    row = shell.report()[1]
    assert row["quarry_outcome"] == "excluded"
    assert "accession (list of this site)" in " ".join(row.values())
    assert "ask its administrator" in " ".join(row.values())
    listed.write_text("Accession\nOTHER\n")  # the administrator corrects the list
    assert shell.quarry("retry", "out", "--outcome", "excluded").code == 0
    assert shell.outcomes() == ["complete", "complete"]


def test_a_user_s_list_does_not_name_the_site(shell: Shell) -> None:
    shell.table("Accession\nQA00004\n", "optout.csv")
    shell.table(ONE + "QA00004\n")
    done = shell.extract("--exclude", "optout.csv")
    assert done.code == 1
    assert "exclusion list (--exclude): 1 accession" in done.text
    assert "the accession of this row is on the exclusion list" in " ".join(shell.report()[1].values())


# -- folders


def test_no_folder_of_a_job_s_state_can_be_listed_by_others(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    shell.table(ONE)
    before = os.umask(0o022)
    try:
        assert shell.plan().code == 0
        assert shell.extract("--state", "records/of/this").code == 0
    finally:
        os.umask(before)
    for top in (home, shell.folder / "records", shell.out):
        for path in (top, *top.rglob("*")):
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), f"{path}: {mode:o}"


def test_a_state_folder_that_an_earlier_version_left_open_is_closed(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plans = tmp_path / "state" / "quarry" / "plans"
    plans.mkdir(parents=True)
    for path in (plans, plans.parent):
        path.chmod(0o755)
    shell.table(ONE)
    assert shell.plan().code == 0
    assert [stat.S_IMODE(path.stat().st_mode) for path in (plans, plans.parent)] == [0o700, 0o700]
