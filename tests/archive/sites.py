"""An archive with its adapter, a receiver, and the relay between them: what the contract suite runs on."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath

from dicom_quarry.archive.base import Archive, MonitorAction, RetrieveRequest
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import CR, MR, SR, TINY, US, make_patient, make_study
from dicom_quarry.demo.synthetic_studies import DemoStudy as DemoStudy
from dicom_quarry.errors import OutOfSpace
from dicom_quarry.model import AE, InstanceInfo, InstanceRef, Receipt, Writer
from dicom_quarry.receiver.server import Receiver
from dicom_quarry.wire.header_scan import scan_dataset
from tests.peers.corpus import TEN_STUDIES_PATIENT, TWIN_ACCESSION, TWIN_PATIENT, UMLAUT_PATIENT, Corpus
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.orthanc import Orthanc
from tests.peers.permanent import CLASSES, COUNTS, PERMANENT, Permanent
from tests.peers.relay import Relay
from tests.peers.store_files import store_files
from tests.peers.web_relay import WebRelay

TITLE = "QUARRY"


@dataclass(frozen=True, slots=True)
class HeldStudy:
    """A study as it was loaded: the class of every instance, by series."""

    study_uid: str
    patient_id: str
    accession: str
    study_date: str
    series: dict[str, dict[str, str]]

    @property
    def sop_uids(self) -> set[str]:
        """Every instance."""
        return {sop_uid for instances in self.series.values() for sop_uid in instances}


class MemorySink:
    """Keeps datasets in memory; refuses those in ``refuse``; holds up all but one while ``gate`` is shut."""

    def __init__(self) -> None:
        self.refuse: set[str] = set()
        self.kept: dict[str, tuple[str, bytes]] = {}
        self.begun = self.unfinished = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def begin(self, arrival: InstanceInfo) -> Writer:
        with self._lock:
            self.begun += 1
            self.unfinished += 1
            second = self.begun > 1
        if second:
            self.gate.wait(60)
        return _MemoryWriter(self, arrival)


class _MemoryWriter:
    def __init__(self, sink: MemorySink, arrival: InstanceInfo) -> None:
        self._sink = sink
        self._arrival = arrival
        self._data = bytearray()
        self._ended = False

    def write(self, *pieces: memoryview) -> None:
        self._data += b"".join(pieces)

    def commit(self) -> Receipt:
        self._end()
        arrival, data = self._arrival, bytes(self._data)
        # Of a file that came whole the dataset counts, not its file meta information.
        sop_uid = scan_dataset(data, arrival.transfer_syntax, (0x00080018,))[0x00080018]
        if sop_uid in self._sink.refuse:
            raise OutOfSpace("no room for this one")
        self._sink.kept[sop_uid] = (arrival.transfer_syntax, data)
        ref = InstanceRef("", "", sop_uid, arrival.sop_class)
        digest = hashlib.sha256(data).digest()
        return Receipt(ref, arrival.transfer_syntax, PurePosixPath(sop_uid), len(data), digest)

    def abort(self) -> None:
        self._end()
        self._data.clear()

    def _end(self) -> None:
        self._sink.unfinished -= not self._ended
        self._ended = True


class PatientWatch:
    """Waits for ever, unless a test says otherwise once a tick."""

    def __init__(self, decide: Callable[[], MonitorAction] = lambda: MonitorAction.WAIT) -> None:
        self.signs = 0
        self.next_action = decide

    def has_received(self) -> bool:
        return False

    def on_request(self, message_id: int) -> None:
        pass

    def on_activity(self, completed: int | None, remaining: int | None) -> None:
        self.signs += 1


@dataclass(eq=False)
class Site:
    """One archive in its surroundings.

    ``archive`` makes an adapter, which asks for ``destination`` (a title); ``omits`` names what the archive
    does not answer or do, such as COUNTS (of instances) and CLASSES (of SOP). ``moves``: it sends by C-MOVE
    to a receiver, and ``relay`` stands before that; else it stands before the archive.
    While ``gate`` is shut no more than one instance comes.
    """

    archive: Callable[[str], Archive]
    studies: dict[str, HeldStudy]
    sink: MemorySink
    relay: Relay | WebRelay
    peer: AE
    omits: frozenset[str] = frozenset()
    moves: bool = True
    cleanup: list[Archive] = field(default_factory=list)

    @property
    def gate(self) -> threading.Event:
        return self.sink.gate if self.moves else self.relay.flow

    def adapter(self, destination: str = TITLE) -> Archive:
        """An adapter that is closed with the site."""
        archive = self.archive(destination)
        self.cleanup.append(archive)
        return archive

    def ask(
        self, study: HeldStudy, series: Iterable[str] = (), sop_uids: Iterable[str] = ()
    ) -> RetrieveRequest:
        """What a job would ask for, having listed the study."""
        listed = {uid: frozenset(study.series[uid].values()) for uid in series or study.series}
        classes = {} if CLASSES in self.omits else listed
        return RetrieveRequest(
            study.study_uid, study.patient_id, tuple(series), tuple(sop_uids), sop_classes_by_series=classes
        )

    def of_patient(self, patient_id: str) -> list[HeldStudy]:
        """What the archive holds of a patient."""
        return [study for study in self.studies.values() if study.patient_id == patient_id]

    def fresh(self) -> None:
        """Forget what was received and heard."""
        self.sink.refuse = set()
        self.sink.kept = {}
        self.sink.begun = 0
        self.gate.set()
        self.relay.forget()


#: Starts an archive that knows a destination, and gives its address and what it holds.
Start = Callable[[ExitStack, list[AE]], tuple[AE, dict[str, HeldStudy]]]


@contextmanager
def receiving() -> Iterator[tuple[MemorySink, Relay]]:
    sink = MemorySink()
    receiver = Receiver(AE(TITLE, "127.0.0.1", 0), sink)
    receiver.start()
    try:
        with Relay(AE(TITLE, "127.0.0.1", receiver.port)) as relay:
            yield sink, relay
    finally:
        sink.gate.set()
        receiver.stop(2.0)


@contextmanager
def _by_move(start: Start, *, omits: frozenset[str] = frozenset()) -> Iterator[Site]:
    with ExitStack() as stack:
        sink, relay = stack.enter_context(receiving())
        peer, studies = start(stack, [relay.ae])

        def adapter(destination: str) -> Archive:
            return DimseArchive("main", peer, calling=TITLE, destination=destination)

        yield Site(adapter, studies, sink, relay, peer, omits)


@contextmanager
def _by_get(start: Start, *, omits: frozenset[str] = frozenset()) -> Iterator[Site]:
    with ExitStack() as stack:
        peer, studies = start(stack, [])
        relay = stack.enter_context(Relay(peer))
        stack.callback(relay.flow.set)

        def adapter(destination: str) -> Archive:
            return DimseArchive("main", relay.ae, calling=TITLE, destination=destination, retrieve="get")

        yield Site(adapter, studies, MemorySink(), relay, relay.ae, omits, moves=False)


def held(corpus: Corpus) -> dict[str, HeldStudy]:
    """What an archive holds after loading the corpus."""
    studies: dict[str, HeldStudy] = {}
    for item in corpus.items:
        study = studies.setdefault(
            item.study_uid,
            HeldStudy(item.study_uid, item.patient_id, item.accession, item.study_date, {}),
        )
        study.series.setdefault(item.series_uid, {})[item.sop_uid] = item.sop_class
    return studies


@contextmanager
def site(kind: str, folder: Path, corpus: Corpus) -> Iterator[Site]:
    """An archive by name, with ``-get`` behind it where it is to send by C-GET."""
    name = kind.removesuffix("-get")
    peer = PERMANENT.get(name)
    own = {"demo": _demo, "orthanc": _orthanc, "dcmqrscp": _dcmqrscp}
    start = _permanent(peer, folder, corpus) if peer else own[name](folder, corpus)
    make = _by_get if kind.endswith("-get") else _by_move
    omits = frozenset({COUNTS, CLASSES}) if name == "dcmqrscp" else frozenset[str]()
    with make(start, omits=peer.omits if peer else omits) as made:
        yield made


def _permanent(peer: Permanent, folder: Path, corpus: Corpus) -> Start:
    """One of the archives of tests/peers/permanent.py, with what it keeps of the corpus."""

    def start(stack: ExitStack, destinations: list[AE]) -> tuple[AE, dict[str, HeldStudy]]:
        server = stack.enter_context(peer.make(folder, destinations=destinations))
        return server.ae, held(peer.keeps(store_files(corpus, server.ae)))

    return start


def _orthanc(folder: Path, corpus: Corpus) -> Start:
    """Orthanc with the whole corpus."""

    def start(stack: ExitStack, destinations: list[AE]) -> tuple[AE, dict[str, HeldStudy]]:
        server = stack.enter_context(Orthanc(folder, destinations=destinations))
        server.load(corpus.paths)
        return server.ae, held(corpus)

    return start


def _dcmqrscp(folder: Path, corpus: Corpus) -> Start:
    """DCMTK's archive with what it can forward: it holds no codecs."""
    loaded = corpus.uncompressed()

    def start(stack: ExitStack, destinations: list[AE]) -> tuple[AE, dict[str, HeldStudy]]:
        server = Dcmqrscp(folder, destinations=destinations)
        server.load(loaded.paths)
        stack.enter_context(server)
        return server.ae, held(loaded)

    return start


def _demo(folder: Path, corpus: Corpus) -> Start:
    """Quarry's own demo archive; it makes its studies itself."""
    studies = _demo_studies()

    def start(stack: ExitStack, destinations: list[AE]) -> tuple[AE, dict[str, HeldStudy]]:
        addresses = {ae.title: (ae.host, ae.port) for ae in destinations}
        server = stack.enter_context(DemoArchive(studies, destinations=addresses))
        return AE(server.title, server.host, server.port), {one.study_uid: _held(one) for one in studies}

    return start


def _demo_studies() -> list[DemoStudy]:
    chance = random.Random(1)
    ten = make_patient(chance, TEN_STUDIES_PATIENT)
    twins = make_patient(chance, TWIN_PATIENT)
    umlaut = make_patient(chance, UMLAUT_PATIENT, "Müller^Jörg")
    return [
        *(make_study(ten, f"QA{n:05d}", date(2019, n + 1, 3), (TINY, 2), (TINY, 3)) for n in range(10)),
        *(make_study(twins, TWIN_ACCESSION, date(2019, 5, 1), (TINY, 4), variant=n) for n in range(2)),
        make_study(umlaut, "QA00012", date(2019, 6, 1), (TINY, 2)),
        *(
            make_study(make_patient(chance, f"Q-KIND{n}"), f"QK{n}", date(2019, 7, 1), (kind, 2), (SR, 1))
            for n, kind in enumerate((MR, CR, US))
        ),
    ]


def _held(study: DemoStudy) -> HeldStudy:
    series: dict[str, dict[str, str]] = {}
    for instance in study.instances():
        series.setdefault(instance.series.series_uid, {})[instance.sop_uid] = instance.sop_class
    return HeldStudy(study.study_uid, study.patient.patient_id, study.accession, study.study_date, series)
