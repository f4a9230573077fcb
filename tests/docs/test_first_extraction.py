"""Follow docs/first-extraction.md as a new user would, at a terminal, against Orthanc."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.docs.pages import ROOT, parts
from tests.docs.scenes import Scene, path_for_shell
from tests.e2e.command import files, outcomes
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
