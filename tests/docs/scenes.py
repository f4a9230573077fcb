"""Follow a page, with a folder, an archive and a port of this test in place of those that the page names."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.sample_cohorts import make_demo_studies, write_cohorts
from tests.docs.pages import Part
from tests.e2e.command import PATIENCE, command_server, quarry
from tests.e2e.test_terminal import Terminal
from tests.peers.process import free_port, wait_for

#: Text that differs between computers and between days.
_VARYING = (
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d[-+]\d\d:\d\d)?", "WHEN"),
    (r"process \d+", "process NUMBER"),
    (r"\(user \w+", "(user NAME"),
    (r"until \w{3} \d\d:\d\d", "until THEN"),
    (r"\d+\.\d+\.\d+\.\d+|every interface", "ADDRESS"),
    (r"[\d,.]+ (B|kB|MB|GB)\b", "SIZE"),
    (r"\bat /\S+", "at FOLDER"),
    (r"^.* clock: .*|.*set up NTP.*", "CLOCK"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "HH:MM"),
    (r"\d+ min \d+ s|\d+ h \d+ min|\b\d+ s\b", "TIME"),
)
#: Commands that need no existing job.
_FIRST = ("extract", "plan", "check", "init", "receive", "demo", "list", "--version")


class Scene:
    """A reader who follows a page; commands are typed at a terminal, in a shell."""

    def __init__(self, folder: Path, port: int, replaced: Mapping[str, str]) -> None:
        self.folder, self.port = folder, port
        self.replaced = {"QUARRY:11112": f"QUARRY@127.0.0.1:{port}", **replaced}
        self._file, self._endless = "", False
        self._codes: tuple[int, ...] = (0, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        quarry("stop", "--all", "--now")

    def read(self, part: Part) -> None:
        """Do one part of the page."""
        if part.kind == "event":
            self._event(part.text)
        elif part.kind == "command":
            self._type(part)
        elif self._file:
            (self.folder / self._file).write_text(self._localize(part.text))
            self._file = ""
        elif part.kind == "python":
            code, output = command_server().run_code(self._localize(part.text), PATIENCE)
            assert code == 0, f"{part.text}\n{output}"

    def _event(self, word: str) -> None:
        if "." in word:
            self._file = word
        elif word.startswith("exit-"):
            self._codes = (int(word.removeprefix("exit-")),)
        elif word == "until-stopped":
            self._endless = True
        else:
            getattr(self, f"on_{word.replace('-', '_')}")()

    def before(self, command: str) -> None:
        """Prepare what a command needs."""

    def _type(self, part: Part) -> None:
        self.before(part.text)
        terminal = Terminal("-c", self._localize(part.text), program="/bin/sh")
        try:
            if self._endless:
                terminal.wait_for(self._localize(part.lines[0]))
                os.killpg(terminal.child.pid, signal.SIGINT)
            code = terminal.end()
        finally:
            terminal.child.kill()
            terminal.child.wait()
        assert code in self._codes or self._endless, f"{part.text}: exit code {code}\n{terminal.shown}"
        self._codes, self._endless = (0, 1), False
        self._compare(part, [self._as_on_page(line) for line in terminal.shown.splitlines()])

    def _compare(self, part: Part, shown: list[str]) -> None:
        position = 0
        for line in part.lines:
            wanted = _mask_varying(line)
            # Between the lines there may be some of the live display.
            assert wanted in shown[position:], f"{part.text}\n{wanted}\nis not in\n" + "\n".join(shown)
            position = shown.index(wanted, position) + 1

    def _localize(self, text: str) -> str:
        for page, ours in self.replaced.items():
            text = text.replace(page, ours)
        return text

    def _as_on_page(self, line: str) -> str:
        for page, ours in self.replaced.items():
            line = line.replace(ours, page)
        return _mask_varying(line.replace(str(self.port), "11112"))


def _mask_varying(line: str) -> str:
    for pattern, word in _VARYING:
        line = re.sub(pattern, word, line)
    return line.rstrip()


class DemoScene(Scene):
    """The demo archive as PACS@10.1.2.3:104, README's cohort.csv, and a job in out/ if a command needs it."""

    def __init__(self, folder: Path) -> None:
        port, theirs = free_port(), free_port()
        destinations = {"QUARRY": ("127.0.0.1", port)}
        self._archive = DemoArchive(make_demo_studies(), title="PACS", port=theirs, destinations=destinations)
        address = f"127.0.0.1:{theirs}"
        (folder / "elsewhere").mkdir()
        places = {"/data/project": str(folder), "/mnt/elsewhere": str(folder / "elsewhere")}
        super().__init__(folder, port, {"10.1.2.3:104": address, **places})
        write_cohorts(folder / "cohorts", make_demo_studies())[0].rename(folder / "cohort.csv")
        (folder / "quarry.toml").write_text(f'from = "PACS@{address}"\nas = "QUARRY@127.0.0.1:{port}"\n')

    def __enter__(self) -> Self:
        self._archive.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._archive.stop()

    def on_cohort_ct(self) -> None:
        """Write a table and settings with which a job waits, and keeps its port."""
        (self.folder / "ct.csv").write_bytes((self.folder / "cohort.csv").read_bytes())
        toml, now = self.folder / "quarry.toml", datetime.now()
        opens, closes = (f"{now + timedelta(hours=hours):%H:%M}" for hours in (2, 3))
        old = toml.read_text().replace('from = "', 'from = "main"\n#')
        address = self.replaced["10.1.2.3:104"]
        profile = f'[archive.main]\naddress = "PACS@{address}"\nwindow = "{opens}-{closes}"\n'
        toml.write_text(f"{old}{profile}")

    def on_damage(self) -> None:
        """Damage one file, lose one, add one."""
        damaged, lost, *_ = sorted((self.folder / "out").rglob("*.dcm"))
        damaged.write_bytes(b"")
        lost.rename(self.folder / "out" / "elsewhere.dcm")
        self._codes = (1,)

    def on_grown(self) -> None:
        """Give the archive one more image of every series."""
        self._archive.catalogue = Catalogue(
            replace(
                one,
                series=tuple(
                    replace(series, instance_count=series.instance_count + 1) for series in one.series
                ),
            )
            for one in make_demo_studies()
        )
        self._codes = (1,)

    def before(self, command: str) -> None:
        """Run the job first if a command needs one."""
        _, verb, *rest = [*command.split(), "", ""]
        needed = any(re.fullmatch("out/?", word) for word in rest)
        if needed and verb not in _FIRST and not (self.folder / "out").exists():
            assert quarry("extract", "cohort.csv", "--to", "out").code == 1
        if verb == "list" and (self.folder / "ct").exists():
            # A job in the background goes on to its wait when the command that started it has returned.
            wait_for(lambda: "waiting for" in quarry("list").out, "the job of the page to wait")
