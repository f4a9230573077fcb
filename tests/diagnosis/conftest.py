"""One check of one archive, as a user runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.model import AE
from tests.e2e.command import quarry
from tests.peers.corpus import write_study
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

ACCESSION, PATIENT, INSTANCES = "SECRET-4711", "HIDDEN-0815", 4


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check said: its exit code, everything, and the steps by name with their sign."""

    code: int
    out: str
    steps: dict[str, tuple[str, str]]

    @property
    def bad(self) -> dict[str, str]:
        """What the steps say that failed."""
        return {name: said for name, (sign, said) in self.steps.items() if sign == "✗"}


Check = Callable[..., Checked]


@pytest.fixture
def us() -> AE:
    """Our receiver, on a port of its own."""
    return AE("QUARRY", "127.0.0.1", free_port())


@pytest.fixture
def check(tmp_path: Path, us: AE) -> Check:
    """``check(archive, *options)``, in an empty folder in which nothing of it may stay."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(archive: object, *options: object) -> Checked:
        done = quarry("check", "--from", archive, "--as", f"QUARRY@{us.host}:{us.port}", *options, cwd=folder)
        assert not list(folder.glob(".quarry-check-*"))
        assert not done.err or done.code in (2, 3) or "-" in options, done.err
        for secret in (ACCESSION, PATIENT):
            assert secret not in done.out + done.err
        steps = {}
        for line in (done.out + done.err).splitlines():
            sign, _, rest = line.partition(" ")
            if sign in ("✓", "–", "✗"):
                name, _, said = rest.partition(": ")
                steps[name] = sign, said
        return Checked(done.code, done.out + done.err, steps)

    return run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One small study."""
    folder = tmp_path_factory.mktemp("study") / "one"
    items = write_study(folder, patient_id=PATIENT, accession=ACCESSION, series=2, instances=INSTANCES // 2)
    return [item.path for item in items]


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[Orthanc]:
    """Orthanc, which knows nobody before a test registers somebody."""
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        server.load(files)
        yield server


@pytest.fixture(scope="session")
def dcmqrscp(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[Dcmqrscp]:
    """DCMTK's archive, which knows nobody either."""
    server = Dcmqrscp(tmp_path_factory.mktemp("dcmqrscp"))
    server.load(files)
    with server:
        yield server


@pytest.fixture(scope="session")
def studies() -> list[DemoStudy]:
    """Of several patients, on different days of 2018."""
    return generate_studies(12, seed=4, images=2)
