"""Follow docs/first-extraction.md as a new user would, at a terminal: with Orthanc, and with the demo."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.docs.pages import ROOT, Part, parts
from tests.docs.scenes import Scene
from tests.e2e.command import files, outcomes, path_for_shell
from tests.e2e.test_terminal import Terminal
from tests.peers.corpus import write_study
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

PAGE = ROOT / "docs" / "first-extraction.md"


class Hospital(Scene):
    """Orthanc, which at first knows neither our AE title nor the third study."""

    def __init__(self, orthanc: Orthanc, folder: Path, studies: dict[str, list[Path]]) -> None:
        self._orthanc, self._studies = orthanc, studies
        super().__init__(folder, free_port(), {"10.1.2.3:104": f"127.0.0.1:{orthanc.ae.port}"})

    def on_register(self) -> None:
        """Register the receiver, as the PACS team does after the letter."""
        self._orthanc.register(AE("QUARRY", "127.0.0.1", self.port))

    def on_archive(self) -> None:
        """Add the third study, as the PACS team does."""
        self._orthanc.load(self._studies["A1003"])


class Practice(Scene):
    """``quarry demo --serve`` in another terminal."""

    def __init__(self, folder: Path) -> None:
        self._demo = Terminal("demo", "--serve", "--to", folder / "demo")
        self._demo.wait_for("Press Enter")
        addresses = re.search(r"--from DEMO@(\S+) --as QUARRY@\S+:(\d+)", self._demo.shows())
        assert addresses
        # The demo archive knows our AE title, so the first two checks show no fault.
        self._has_fault = True
        super().__init__(folder, int(addresses[2]), {"10.1.2.3:104": addresses[1], "PACS": "DEMO"})

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._demo.child.terminate()
        self._demo.end()

    def on_register(self) -> None:
        """Compare the output from here on."""
        self._has_fault = False

    def on_archive(self) -> None:
        """Add the third study."""
        self._demo.type("\n")
        self._demo.wait_for("A1003 is in the archive now")

    def _compare(self, part: Part, shown: list[str]) -> None:
        if not self._has_fault:
            super()._compare(part, shown)


@pytest.fixture
def studies(tmp_path: Path) -> dict[str, list[Path]]:
    """Return the files of the page's studies, by accession."""
    made = {}
    for number in (1, 2, 3):
        accession = f"A100{number}"
        items = write_study(
            tmp_path / accession, patient_id=f"P-{number}00", accession=accession, instances=4 * number
        )
        made[accession] = [item.path for item in items]
    return made


@pytest.mark.slow
def test_the_page_on_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path_for_shell())
    with Practice(tmp_path) as reader:
        for part in parts(PAGE):
            reader.read(part)
    assert [word for word, _ in outcomes(tmp_path / "out")] == ["complete"] * 4


@pytest.mark.slow
def test_the_page(tmp_path: Path, studies: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", path_for_shell())
    page = list(parts(PAGE))
    with Orthanc(tmp_path / "orthanc", aet="PACS") as orthanc:
        orthanc.load([*studies["A1001"], *studies["A1002"]])
        with Hospital(orthanc, folder, studies) as reader:
            for part in page:
                reader.read(part)
    # At its end the reader has what the page promises, and has seen every command with its answer.
    assert [word for word, _ in outcomes(folder / "out")] == ["complete"] * 4
    assert len([name for name in files(folder / "out") if name.endswith(".dcm")]) == 24
    assert (folder / "letter.md").is_file()
    assert all(part.lines for part in page if part.kind == "command")
