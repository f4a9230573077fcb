"""The archives of these tests, each started and loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from dicom_quarry.demo.dicomweb_server import DemoWebServer
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.model import AE
from tests.e2e.expected_outcomes import Holding, demo_holding, of_corpus, of_demo
from tests.peers.corpus import Corpus
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.orthanc import DICOMWEB, Orthanc


@dataclass(frozen=True, slots=True)
class Site:
    """A running archive: where it is, what it holds, how it learns of a destination; ``web``: over HTTP."""

    ae: AE
    holding: Holding
    register: Callable[[AE], None]
    base: str = ""
    web: bool = False

    @property
    def remote(self) -> str:
        """What stands behind --from."""
        return self.base if self.web else str(self.ae)


@pytest.fixture(scope="session")
def names(corpus: Corpus) -> dict[str, str]:
    """The patients' names by study."""
    return {
        uid: str(pydicom.dcmread(items[0].path, stop_before_pixels=True).get("PatientName") or "")
        for uid, items in corpus.studies().items()
    }


@pytest.fixture(scope="session")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, names: dict[str, str]
) -> Iterator[Site]:
    """Orthanc with the whole corpus."""
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options=DICOMWEB) as server:
        server.load(corpus.paths)
        yield Site(server.ae, of_corpus(corpus, names), server.register, server.base)


@pytest.fixture(scope="session")
def dcmqrscp(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, names: dict[str, str]
) -> Iterator[Site]:
    """DCMTK's archive with what it can forward: it has no codecs."""
    loaded = corpus.uncompressed()
    server = Dcmqrscp(tmp_path_factory.mktemp("dcmqrscp"))
    server.load(loaded.paths)
    with server:
        yield Site(server.ae, of_corpus(loaded, names), server.register)


@pytest.fixture(scope="session")
def demo() -> Iterator[Site]:
    """The demo archive, in this process."""
    studies = demo_holding()
    with DemoArchive(studies) as server:

        def register(ae: AE) -> None:
            server.destinations[ae.title] = (ae.host, ae.port)

        yield Site(AE(server.title, server.host, server.port), of_demo(studies), register)


@pytest.fixture(scope="session")
def demo_web() -> Iterator[Site]:
    """The demo archive's web services, in this process."""
    studies = demo_holding()
    with DemoWebServer(Catalogue(studies)) as server:
        yield Site(
            AE("", "127.0.0.1", server.port), of_demo(studies), lambda _: None, server.base_url, web=True
        )


@pytest.fixture(params=["demo", "orthanc", "dcmqrscp", "demo_web"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each archive in turn."""
    found: Site = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in: no quarry.toml of the developer's gets in the way."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
