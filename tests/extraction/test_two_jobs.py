"""Two jobs on one worker: both want the same study, and get it one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dicom_quarry.config.settings import load_settings
from dicom_quarry.demo.dimse_operations import RetrieveOperation
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.extraction.archive_client import open_clients
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.job_setup import make_job_context
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.extraction.storage_scp import run_receiver
from dicom_quarry.extraction.study_work import work_on_study
from dicom_quarry.extraction.worker import JobSinks, Worker, open_worker
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus, Selection, Study
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.store.incoming import open_incoming
from tests.ledger.helpers import begin, request
from tests.peers.process import free_port
from tests.scripted.archive import Fault, ScriptedArchive

IMAGES = 4


class AtOnce(Fault):
    """Counts the C-MOVEs that are under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        self.now += sent == 0
        self.most = max(self.most, self.now)
        self.now -= sent == IMAGES


def open_job(stack: ExitStack, folder: Path, study: DemoStudy, settings: dict[str, str]) -> JobContext:
    """Open a job with one row, which is resolved to the study."""
    place = LocalPlace(folder, folder / "state")
    for path in (place.state, place.incoming):
        path.mkdir(parents=True)
    queries = make_query_context(load_settings(None, {**settings, "to": str(folder)}), JobObserver())
    ledger = stack.enter_context(closing(Ledger(place.ledger)))
    row = request(1, study.accession)
    begin(ledger, [row])
    wanted = Study(
        study.study_uid, study.patient.patient_id, study.accession, study.study_date, "CT", "", 1, IMAGES
    )
    ledger.resolve_request(row, queries.settings.archives[0].name, [(wanted, Selection())]).result()
    incoming = stack.enter_context(open_incoming(place.incoming, ledger.claims.worker, lambda _: True))
    audit_log = stack.enter_context(place.open_audit_log(ledger))
    return make_job_context(queries, place, ledger, audit_log, incoming, ("Accession",))


@pytest.fixture
def seen() -> AtOnce:
    return AtOnce()


@pytest.fixture
def shared(tmp_path: Path, seen: AtOnce) -> Iterator[tuple[list[JobContext], Worker]]:
    """Two jobs that want the one study of an archive, and a worker with one receiver for both."""
    (study,) = generate_studies(1, images=IMAGES)
    port = free_port()
    with (
        ScriptedArchive([study], [seen], destinations={"QUARRY": ("127.0.0.1", port)}) as archive,
        ExitStack() as stack,
    ):
        address = f"{archive.title}@{archive.host}:{archive.port}"
        settings = {"from": address, "as": f"QUARRY:{port}", "parallel": "2", "retrieve": "move"}
        jobs = [open_job(stack, tmp_path / name, study, settings) for name in ("first", "second")]
        queries = jobs[0].queries
        port_queue = PortQueue(
            queries.settings.local, tmp_path, tmp_path, queries.shutdown, queue=False, on_wait=print
        )
        sinks = JobSinks(*(job.sink for job in jobs))
        archives = queries.settings.archives
        stats = stack.enter_context(
            run_receiver(queries.settings, archives, sinks, print, port_queue, queries.user_shutdown)
        )
        clients = stack.enter_context(open_clients(queries, has_delivered=True))
        yield jobs, stack.enter_context(open_worker(clients, stats))


def test_two_jobs_that_want_one_study_take_turns(
    shared: tuple[list[JobContext], Worker], seen: AtOnce
) -> None:
    jobs, worker = shared

    def work(job: JobContext) -> bool:
        (task,) = job.ledger.claims.take_tasks(time.time(), 1)
        return work_on_study(task, job, worker, InternalErrorGuard("studies", print))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, jobs)) == [True, True]
    assert seen.most == 1
    for job in jobs:
        with closing(LedgerReader(job.folder.ledger)) as reader:
            assert reader.counts().rows_by_status == {OutcomeStatus.COMPLETE: 1}
        assert len(list(job.folder.out.rglob("*.dcm"))) == IMAGES
