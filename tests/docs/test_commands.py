"""Run every command of README.md and docs/*.md; those in the list below are only parsed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import arguments
from tests.docs.pages import PAGES, ROOT, Part, commands_in_blocks, mentioned, parts
from tests.docs.scenes import DemoScene
from tests.docs.test_first_extraction import PAGE as FIRST_EXTRACTION
from tests.e2e.command import path_for_shell

COMPOSE = ROOT / "deploy" / "compose.yaml"

#: Commands that cannot be run here, and the reason. Keep it short.
_FETCHES = "fetches from a package index; make check-wheelhouse and make sbom are run before a release"
_UNPACKED = "needs what make wheelhouse has made; make check-wheelhouse does this without a network"
_ENGINE = "needs a container engine; the Dockerfile is checked by tests/test_deploy.py"
_DATABASE = "needs a database, as tests/named_jobs has one"
NOT_RUN = {
    'quarry release "$QUARRY_OUT" --study "$QUARRY_STUDY_UID" --delete': "a line of a script that is run",
    "make demo": "needs a fresh checkout; it is `quarry demo --to demo`, which tests/e2e/test_demo.py runs",
    "make install": "every test runs what it has installed",
    ".venv/bin/quarry --version": "the environment may be elsewhere; tests/e2e/test_no_telemetry.py runs it",
    "make wheelhouse": _FETCHES,
    "make sbom": _FETCHES,
    "tar -xzf quarry-0.1.0-linux-x86_64.tar.gz": _UNPACKED,
    "quarry-0.1.0-linux-x86_64/install.sh /opt/quarry": _UNPACKED,
    "/opt/quarry/bin/quarry demo --to demo": _UNPACKED,
    "docker build -t quarry quarry-0.1.0-linux-x86_64": _ENGINE,
    "docker run --rm --network host --user $(id -u):$(id -g) -v $PWD:/data -v ~/.local/state:/state "
    "quarry extract cohort.csv --from PACS@10.1.2.3:104 --as QUARRY:11112 --to out/": _ENGINE,
    "$ quarry extract cohort.csv --job ct-2026 --to out": _DATABASE,
    (
        "$ quarry extract cohort.csv --job ct-2026 --to /data/research/ct-2026 --on-complete command:ship"
    ): _DATABASE,
    "$ quarry cluster status": _DATABASE,
    "$ quarry verify job:ct-2026": _DATABASE,
    (
        "The workers of the database compare the files. Ctrl-C lets go of them; to stop them:  quarry stop "
        "job:ct-2026"
    ): "what it says",
    "$ quarry cluster remove job:ct-2026": _DATABASE,
    "ExecStart=/opt/quarry/bin/quarry extract ct.csv --to ct --queue": "systemd runs it: test_units.py",
}
# Those of the containers, which tests/test_deploy.py compares with the page.
NOT_RUN |= dict.fromkeys(re.findall(r"^#   (\S.*)$", COMPOSE.read_text(), re.MULTILINE), _ENGINE)


def commands(page: Path) -> list[Part]:
    return [part for part in parts(page) if part.kind == "command"]


RUN_HERE = [
    page
    for page in PAGES
    if page != FIRST_EXTRACTION
    and any(part.kind in ("command", "python") and part.text not in NOT_RUN for part in parts(page))
]


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_commands_work_as_on_the_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path_for_shell())
    with DemoScene(tmp_path) as reader:
        for part in parts(page):
            if part.text not in NOT_RUN:
                reader.read(part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_are_listed(page: Path) -> None:
    unlisted = set(commands_in_blocks(page, set(arguments.COMMANDS))) - set(NOT_RUN)
    assert not unlisted, "type them in a console block, or add them to NOT_RUN with the reason"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mentioned_commands_exist(page: Path) -> None:
    wrong = {mention: names for mention in mentioned(page) if (names := arguments.unknown(mention))}
    assert not wrong


def test_the_list_is_no_longer_than_needed() -> None:
    written = {part.text for page in PAGES for part in commands(page)}
    written.update(line for page in PAGES for line in commands_in_blocks(page, set(arguments.COMMANDS)))
    assert set(NOT_RUN) <= written


@pytest.mark.parametrize("line", NOT_RUN)
def test_commands_that_are_not_run_are_parsed(line: str) -> None:
    command = re.search(rf"\bquarry ({'|'.join(arguments.COMMANDS)})\b.*", line)
    if command:
        arguments.parse(command[0])


@pytest.mark.parametrize("name", arguments.COMMANDS)
def test_the_examples_of_the_help_are_parsed(name: str) -> None:
    examples = re.findall(
        r"^ *(quarry .+)$", arguments.COMMANDS[name].help.partition("Examples:")[2], re.MULTILINE
    )
    assert len(examples) == 3
    for example in examples:
        for command in re.split(r" (?:&&|\|) ", example):
            if command.startswith("quarry "):
                arguments.parse(command)
