"""Archives over DICOMweb for the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

from pydicom.filereader import _read_file_meta_info, read_preamble

from dicom_quarry.archive.base import Archive
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.demo.dicomweb_server import DemoWebServer
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.model import AE, BaseUri
from tests.archive import sites
from tests.archive.sites import HeldStudy, MemorySink, Site, held
from tests.peers.corpus import Corpus
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.permanent import PERMANENT, Permanent
from tests.peers.store_files import store_files
from tests.peers.web_relay import WebRelay

Stored = dict[str, tuple[str, bytes]]


@contextmanager
def site(kind: str, folder: Path, corpus: Corpus) -> Iterator[Site]:
    """An archive by name, with ``-web`` behind it."""
    name = kind.removesuffix("-web")
    if peer := PERMANENT.get(name):
        with _permanent(peer, folder, corpus) as made:
            yield made
    else:
        with {"demo": _demo, "orthanc": _orthanc}[name](folder, corpus) as made:
            yield made


@contextmanager
def _permanent(peer: Permanent, folder: Path, corpus: Corpus) -> Iterator[Site]:
    """One of the archives of tests/peers/permanent.py, with what it keeps of the corpus."""
    with peer.make(folder, destinations=()) as server:
        kept = peer.keeps(store_files(corpus, server.ae))
        port = urlsplit(server.base).port or 80
        with _site(port, held(kept), lambda: _of_files(kept)) as site:
            site.omits = peer.omits
            yield site


@contextmanager
def _orthanc(folder: Path, corpus: Corpus) -> Iterator[Site]:
    """Orthanc's plugin with the whole corpus."""
    with Orthanc(folder, options=DICOMWEB) as server:
        server.load(corpus.paths)
        with _site(server.http_port, held(corpus), lambda: _of_files(corpus)) as site:
            yield site


@contextmanager
def _demo(folder: Path, corpus: Corpus) -> Iterator[Site]:
    """The demo archive's services."""
    studies = sites._demo_studies()
    with DemoWebServer(Catalogue(studies)) as server:
        holding = {study.study_uid: sites._held(study) for study in studies}
        with _site(server.port, holding, lambda: _of_studies(studies)) as site:
            yield site


@contextmanager
def _site(port: int, holding: dict[str, HeldStudy], stored: Callable[[], Stored]) -> Iterator[Site]:
    with ExitStack() as stack:
        relay = stack.enter_context(WebRelay(port, stored))
        base = BaseUri("http", "127.0.0.1", relay.port, "/dicom-web")

        def adapter(_destination: str) -> Archive:
            return DicomWebArchive("main", base)

        peer = AE("", "127.0.0.1", relay.port)
        yield Site(adapter, holding, MemorySink(), relay, peer, moves=False)


def _of_files(corpus: Corpus) -> Stored:
    """Return the datasets of the loaded files, read by pydicom."""
    stored = {}
    for item in corpus.items:
        file = BytesIO(item.path.read_bytes())
        read_preamble(file, force=False)
        _read_file_meta_info(file)
        stored[item.sop_uid] = (item.transfer_syntax, file.read())
    return stored


def _of_studies(studies: Iterable[DemoStudy]) -> Stored:
    instances = (instance for study in studies for instance in study.instances())
    return {one.sop_uid: (one.series.profile.syntax, b"".join(encode_dataset(one))) for one in instances}
