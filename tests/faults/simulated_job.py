"""A job over a simulated archive and disk, with the real ledger and policy, that can crash at any effect.

Every question to the archive, every instance that becomes durable, every write of the ledger is two effects:
one before it, one after. The n-th may be the last of a life: then :class:`Crash` ends it, and only what is
on the disk and committed to the ledger is there in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dicom_quarry.archive.base import (
    RetrieveMonitor,
    RetrieveRequest,
    RetrieveResult,
    StudyQueryResult,
    Verdict,
)
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.errors import QueryFailed
from dicom_quarry.extraction.archive_client import ArchiveClient
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.study_task import StudyTask
from dicom_quarry.extraction.worker import Worker
from dicom_quarry.jobs.audit_log import AuditFile
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.views import StudyView
from dicom_quarry.model import InstanceRef, Listing, Receipt, Sink, Task, Transport
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.scheduling.job_room import JobRoom
from dicom_quarry.scheduling.transport_selection import TransportSelector
from dicom_quarry.system.shutdown import Shutdown
from tests.extraction.contexts import query_context
from tests.ledger.helpers import LITTLE, begin, derive, ref, request, resolve, study
from tests.scheduling.throttles import unlimited


class Crash(BaseException):
    """The process ends here."""


@dataclass(frozen=True, slots=True)
class Mood:
    """How the archive answers a C-MOVE: with every ``each``-th instance (0: none), and this verdict.

    ``claims``: it counts everything as sent.
    """

    each: int
    verdict: Verdict
    claims: bool = False


GOOD = Mood(1, Verdict.SUCCESS)


class World:
    """State that outlives a crash: the archive's holdings, the disk, the ledger; and the archive's log."""

    def __init__(self, folder: Path, studies: int) -> None:
        self.folder = folder
        self.holds = {
            study(n).study_uid: [ref(study(n).study_uid, i) for i in (1, 2, 3)] for n in range(studies)
        }
        self.disk: dict[str, Receipt] = {}
        self.acknowledged: set[str] = set()
        self.proved: dict[str, frozenset[str]] = {}
        self.moves: list[RetrieveRequest] = []
        self.moods: list[Mood] = []
        self.listing_fails = 0
        self.left: int | None = None
        ledger = Ledger(folder / "ledger.db")
        requests = [request(n + 1, f"A{n}") for n in range(studies)]
        begin(ledger, requests)
        for n, one in enumerate(requests):
            resolve(ledger, one, study(n))
        ledger.close()
        self.life = Life(self)

    def step(self) -> None:
        """An effect; raises Crash if it was the last."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Crash

    def run(self, effects: int | None = None) -> bool:
        """Work until nothing can be done, or through so many effects; False if that was a crash."""
        self.left = effects
        try:
            self.life.work()
        except Crash:
            self.restart()
            return False
        finally:
            self.left = None
        return True

    def restart(self) -> None:
        """A new process over what is on the disk."""
        self.life.close()
        self.life = Life(self)

    def views(self) -> list[StudyView]:
        """The studies, as the report has them."""
        reader = LedgerReader(self.folder / "ledger.db")
        try:
            return list(reader.studies())
        finally:
            reader.close()

    def recorded(self, study_uid: str) -> set[str]:
        """Instances of a study that the ledger has as stored."""
        reader = LedgerReader(self.folder / "ledger.db")
        try:
            return {one.ref.sop_uid for one in reader.instances(derive) if one.ref.study_uid == study_uid}
        finally:
            reader.close()


class Life:
    """A process: it is the archive's port and the disk of the work on tasks."""

    name = "main"

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = Ledger(world.folder / "ledger.db")
        database: Any = self.ledger.database
        database.write = self._stepped(database.write)
        self.stop, self.board = Shutdown(), StatusBoard()
        self.deliveries = InboundStudies(self.ledger, lambda _task: {})
        self.audit = AuditFile(world.folder / "audit.csv")
        self.ending = ThreadPoolExecutor(1)

    def _stepped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any) -> Any:
            self.world.step()
            result = real(*arguments)
            self.world.step()
            return result

        return stepped

    def close(self) -> None:
        """Nothing but the ledger's file and the audit was ever open."""
        self.ledger.close()
        self.audit.close()

    def work(self) -> None:
        """Do the work of a job's threads in one thread."""
        tools, worker = self._tools()
        while tasks := self.ledger.waiting_tasks(float("inf"), 1):
            work = StudyTask(tasks[0], tools, worker)
            try:
                work.list_instances()
            except QueryFailed as error:
                work.fail(error)
                continue
            work.run()
            work.finish()

    def _tools(self) -> tuple[JobContext, Worker]:
        profile = ArchiveProfile(name="main", address="PACS@127.0.0.1:104", silence=60, settle=0.001)
        throttle = unlimited(self.stop, self.board)
        archive: Any = self
        breaker = CircuitBreaker(archive, self.stop, self.board, throttle)
        transports = TransportSelector(
            (Transport.MOVE,), "QUARRY:11112", self.board.report, has_delivered=True
        )
        client = ArchiveClient(profile, archive, breaker, throttle, transports)
        worker = Worker({"main": client}, ReceiverStats, self.ending)
        return JobContext(
            queries=query_context(self.world.folder, self.stop, self.board, throttle),
            folder=LocalPlace(self.world.folder, self.world.folder),
            sink=InboundSink(archive, self.deliveries),
            instance_files=archive,
            path_of=derive,
            inbound=self.deliveries,
            ledger=self.ledger,
            disk_space=DiskSpaceMonitor(self.world.folder, 0, self.stop, self.board),
            room=JobRoom(None, int, self.stop, self.board),
            audit_log=self.audit,
        ), worker

    # -- the archive

    def probe(self) -> None:
        self.world.step()

    def find(self, keys: Mapping[str, str]) -> StudyQueryResult:
        raise NotImplementedError

    def release_thread(self) -> None:
        pass

    def release_idle(self) -> None:
        pass

    def list_instances(self, task: Task) -> Listing:
        self.world.step()
        if self.world.listing_fails:
            self.world.listing_fails -= 1
            raise QueryFailed("the archive is out of resources", status=0xA700)
        held = tuple(self.world.holds[task.study.study_uid])
        return Listing(held, tuple(dict.fromkeys(one.series_uid for one in held)), count=len(held))

    def retrieve(self, request: RetrieveRequest, _sink: Sink, monitor: RetrieveMonitor) -> RetrieveResult:
        self.world.step()
        self.world.moves.append(request)
        mood = self.world.moods.pop(0) if self.world.moods else GOOD
        wanted = [
            one
            for one in self.world.holds[request.study_uid]
            if request.series_uids in ((), (one.series_uid,))
            and one.sop_uid in (request.sop_uids or (one.sop_uid,))
        ]
        sent = wanted[:: mood.each] if mood.each else []
        for one in sent:
            self.arrive(one)
        monitor.on_activity(len(sent), len(wanted) - len(sent))
        completed = len(wanted) if mood.claims else len(sent)
        status = None if mood.verdict is Verdict.LOST else 0
        return RetrieveResult(mood.verdict, status, completed, 0 if mood.claims else len(wanted) - len(sent))

    # -- the receiver and the disk

    def arrive(self, one: InstanceRef) -> None:
        """An instance comes: first it is on the disk, then accounted for, then acknowledged."""
        self.world.step()
        path = derive(study(int(one.study_uid.rpartition(".")[2])), one)
        receipt = Receipt(one, LITTLE, path, 100, bytes(32), patient_id="4711")
        self.world.disk.setdefault(one.sop_uid, receipt)
        self.world.step()
        if not self.deliveries.record(receipt):
            self.deliveries.record_late_arrival(receipt)
        self.world.acknowledged.add(one.sop_uid)
        self.world.step()

    def read_receipts(self, directory: PurePosixPath) -> Iterator[Receipt]:
        self.world.step()
        return iter([one for one in self.world.disk.values() if one.path.parent == directory])

    def relocate(self, receipt: Receipt, subdirectory: str) -> Receipt:
        raise NotImplementedError

    def list_files(self, directory: PurePosixPath) -> list[PurePosixPath]:
        raise NotImplementedError

    def find_unsynced(
        self, directory: PurePosixPath, study_uid: str, synced: Container[PurePosixPath]
    ) -> Iterator[PurePosixPath]:
        raise NotImplementedError

    def discard(self, paths: Iterable[PurePosixPath]) -> None:
        raise NotImplementedError

    def sync(self, paths: Iterable[PurePosixPath]) -> None:
        self.world.step()
        assert set(paths) <= {one.path for one in self.world.disk.values()}
