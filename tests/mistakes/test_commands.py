"""Commands and options that are typed wrongly: the message names what is meant, and that works."""

from __future__ import annotations

import re

import pytest

from dicom_quarry.cli.help_groups import GROUP_OF
from tests.docs import arguments
from tests.mistakes.commands import Shell


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("extrcat", "extract"),
        ("Status", "status"),
        ("verfy", "verify"),
        ("download", "extract"),
        ("continue", "resume"),
        ("ps", "list"),
        ("cancel", "stop"),
        ("echo", "check"),
        ("why", "explain"),
        ("storescp", "receive"),
    ],
)
def test_a_command_that_does_not_exist(shell: Shell, typed: str, meant: str) -> None:
    done = shell.quarry(typed, "out")
    assert done.code == 2
    assert f"No such command '{typed}'. Did you mean {meant}?" in done.text
    assert shell.quarry(meant, "--help").code == 0


def test_a_word_without_any_likeness_gets_no_suggestion(shell: Shell) -> None:
    done = shell.quarry("zzyzx")
    assert done.code == 2
    assert "No such command 'zzyzx'." in done.text and "Did you mean" not in done.text


def test_a_table_in_place_of_the_command(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n", "ct.csv")
    done = shell.quarry("ct.csv", "--to", "out")
    assert done.code == 2
    assert "To extract this table: quarry extract ct.csv" in done.text
    assert shell.extract(table="ct.csv").code == 0


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("extract", "--form", "--from"),
        ("extract", "--outdir", "--to"),
        ("extract", "--archive", "--from"),
        ("extract", "--aetitle", "--as"),
        ("extract", "--threads", "--parallel"),
        ("extract", "--Max_Studies", "--max-studies"),
        ("extract", "--where-", "--where"),
        ("plan", "--outptu", "--output"),
        ("plan", "--pacs", "--from"),
        ("explain", "--mrn", "--patient"),
        ("explain", "--acession", "--accession"),
        ("report", "--excel", "--xlsx"),
        ("verify", "--fast", "--quick"),
        ("retry", "--damged", "--damaged"),
    ],
)
def test_an_option_that_does_not_exist(shell: Shell, command: str, typed: str, meant: str) -> None:
    done = shell.quarry(command, "x", f"{typed}=3")
    assert done.code == 2
    assert f"No such option: {typed}. Did you mean {meant}?" in done.text
    assert meant in shell.quarry(command, "--help").text


def test_one_hyphen_where_two_are_needed(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.quarry("extract", "cohort.csv", "-from", shell.remote)
    assert done.code == 2
    assert "No such option: -from. Did you mean --from?" in done.text
    assert shell.extract().code == 0


def test_a_long_dash_of_a_word_processor(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    words = ("extract", "cohort.csv", "--from", shell.remote, "--as", shell.local)
    done = shell.quarry(*words, "\N{EN DASH}to", "out")
    assert done.code == 2
    correction = re.search(r"Type two hyphens: (\S+)", done.text)
    assert correction
    assert shell.quarry(*words, correction[1], "out").code == 0


def test_a_long_dash_that_would_be_taken_for_a_folder(shell: Shell) -> None:
    done = shell.quarry("status", "\N{EM DASH}json")
    assert done.code == 2
    assert "Type two hyphens: --json" in done.text


def test_an_option_of_another_command(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.plan("--parallel", "2")
    assert done.code == 2
    assert "No such option: --parallel. It is an option of quarry extract" in done.text
    assert shell.extract("--parallel", "2").code == 0


def test_a_dry_run_is_a_command_of_its_own(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.extract("--dry-run")
    assert done.code == 2
    assert "That is a command of its own: quarry plan" in done.text
    assert shell.plan().code == 0


def test_an_option_before_the_command(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.quarry("--from", shell.remote, "plan", "cohort.csv")
    assert done.code == 2
    assert "Write it behind the command: quarry plan --from" in done.text
    assert shell.quarry("plan", "--from", shell.remote, "cohort.csv").code == 0


def test_the_output_folder_without_its_option(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.quarry("extract", "cohort.csv", "out", "--from", shell.remote, "--as", shell.local)
    assert done.code == 2
    assert "If it is the output folder, write --to before it" in done.text
    assert shell.extract().code == 0


def test_the_help_has_groups_and_examples(shell: Shell) -> None:
    text = shell.quarry("extract", "--help").out
    groups = ("Examples:", "What:", "From where:", "Which studies:", "Limits:", "Running:")
    places = [text.index(f"\n{group}\n") for group in groups]
    assert places == sorted(places)
    assert text.index("Which studies:") < text.index("--series-not") < text.index("Limits:")
    assert "list[" not in text


@pytest.mark.parametrize("name", arguments.COMMANDS)
def test_every_option_has_a_group_in_the_help(name: str) -> None:
    options = {max(one.opts, key=len) for one in arguments.COMMANDS[name].params}
    assert {option for option in options if option.startswith("-")} <= set(GROUP_OF), (
        "add it to help_groups.py"
    )


def completions(shell: Shell, line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the Tab key offers at the end of a line."""
    monkeypatch.setenv("_QUARRY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    found = shell.quarry().out.split()
    monkeypatch.delenv("_QUARRY_COMPLETE")
    return found


def test_the_tab_key_knows_archives_transports_and_jobs(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.table("Accession\nQA00003\n")
    assert shell.extract().code == 0
    (shell.folder / "quarry.toml").write_text(
        "[archive.main]\naddress = 'A@h:104'\n[archive.mobile]\naddress = 'B@h:104'\n"
    )
    assert completions(shell, "quarry res", monkeypatch) == ["resume"]
    assert completions(shell, "quarry extract c.csv --from m", monkeypatch) == ["main", "mobile"]
    assert completions(shell, "quarry plan c.csv --from main,", monkeypatch) == ["main,mobile"]
    assert completions(shell, "quarry extract c.csv --retrieve g", monkeypatch) == ["get"]
    assert completions(shell, "quarry status o", monkeypatch) == ["out"]
    assert completions(shell, "quarry verify /", monkeypatch) == [str(shell.out)]
    (shell.folder / "quarry.toml").write_text("from = ")
    assert completions(shell, "quarry extract c.csv --from m", monkeypatch) == []
