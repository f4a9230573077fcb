"""docs/first-extraction.md is run as a new user would, at a terminal, against Orthanc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.e2e.command import files, outcomes
from tests.e2e.test_terminal import Terminal
from tests.peers.corpus import write_study
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

PAGE = Path(__file__).parent.parent / "docs" / "first-extraction.md"

#: What differs between one computer and another, one day and another.
_VARYING = (
    (r"\d+\.\d+\.\d+\.\d+|every interface", "ADDRESS"),
    (r"[\d,.]+ (B|kB|MB|GB)\b", "SIZE"),
    (r"\bat /\S+", "at FOLDER"),
    (r"^.* clock: .*|.*synchronised by NTP.*", "CLOCK"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A command with the lines that it shows, or something that happens meanwhile."""

    kind: str
    what: str
    lines: tuple[str, ...] = ()


def parts(text: str) -> Iterator[Part]:
    """The page from top to bottom."""
    pattern = r"<!-- test: (?P<event>\S+) -->|```(?P<kind>\w+)\n(?P<body>.*?)```"
    for found in re.finditer(pattern, text, re.DOTALL):
        if found["event"]:
            yield Part("event", found["event"])
            continue
        first, *rest = found["body"].splitlines()
        if found["kind"] == "console":
            assert first.startswith("$ quarry "), first
            assert not any(line.startswith("$") for line in rest), "one command in a block"
            yield Part("command", first[2:], tuple(rest))
        else:
            yield Part("file", found["body"])


class Reader:
    """Somebody who does what the page says, at an archive and with a port of this test."""

    def __init__(self, orthanc: Orthanc, folder: Path, studies: dict[str, list[Path]]) -> None:
        self._orthanc, self._folder, self._studies = orthanc, folder, studies
        self._us = AE("QUARRY", "127.0.0.1", free_port())
        self._file = ""

    def read(self, part: Part) -> None:
        if part.kind == "command":
            self._run(part)
        elif part.kind == "file":
            (self._folder / self._file).write_text(part.what)
        elif part.what == "register":
            self._orthanc.register(self._us)
        elif part.what == "archive":
            self._orthanc.load(self._studies["A1003"])
        else:
            self._file = part.what

    def _run(self, part: Part) -> None:
        command = part.what.replace("10.1.2.3:104", f"127.0.0.1:{self._orthanc.ae.port}")
        command = command.replace("QUARRY:11112", f"QUARRY@127.0.0.1:{self._us.port}")
        terminal = Terminal(*command.split()[1:])
        try:
            terminal.end()
        finally:
            terminal.child.kill()
            terminal.child.wait()
        shown = [self._as_on_the_page(line) for line in terminal.shown.splitlines()]
        position = 0
        for line in part.lines:
            wanted = _steady(line)
            # Between the lines there may be some of the live display.
            assert wanted in shown[position:], f"{part.what}\n{wanted}\nis not (there) in\n" + "\n".join(
                shown
            )
            position = shown.index(wanted, position) + 1

    def _as_on_the_page(self, line: str) -> str:
        line = line.replace(f"127.0.0.1:{self._orthanc.ae.port}", "10.1.2.3:104")
        line = line.replace(f"QUARRY@127.0.0.1:{self._us.port}", "QUARRY:11112")
        return _steady(line.replace(str(self._us.port), "11112"))


def _steady(line: str) -> str:
    for pattern, word in _VARYING:
        line = re.sub(pattern, word, line)
    return line.rstrip()


@pytest.fixture
def studies(tmp_path: Path) -> dict[str, list[Path]]:
    """By accession: the patients and studies of the page."""
    made = {}
    for number in (1, 2, 3):
        accession = f"A100{number}"
        items = write_study(
            tmp_path / accession, patient_id=f"P-{number}00", accession=accession, instances=4 * number
        )
        made[accession] = [item.path for item in items]
    return made


@pytest.mark.slow
def test_the_page(tmp_path: Path, studies: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with Orthanc(tmp_path / "orthanc", aet="PACS") as orthanc:
        orthanc.load([*studies["A1001"], *studies["A1002"]])
        reader = Reader(orthanc, folder, studies)
        page = list(parts(PAGE.read_text(encoding="utf-8")))
        for part in page:
            reader.read(part)
    # At its end the reader has what the page promises, and has seen every command with its answer.
    assert [word for word, _ in outcomes(folder / "out")] == ["complete"] * 4
    assert len([name for name in files(folder / "out") if name.endswith(".dcm")]) == 24
    assert (folder / "letter.md").is_file()
    assert all(part.lines for part in page if part.kind == "command")
