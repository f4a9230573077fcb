"""Two workers as two processes on one ledger in PostgreSQL, with an archive that counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dicom_quarry.demo.dimse_operations import RetrieveOperation
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus
from tests.ledger.helpers import begin, raw_query, request
from tests.postgres_server import PostgresServer
from tests.scripted.archive import Fault, ScriptedArchive

TIMEOUT = 60.0
STUDIES = 6


class Held(Fault):
    """The first C-GET waits after an instance until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.first: RetrieveOperation | None = None
        self.waits, self.go_on = threading.Event(), threading.Event()

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        if self.first is None:
            self.first = move
        if move is self.first and sent == 1:
            self.waits.set()
            self.go_on.wait(TIMEOUT)


class Process:
    """A worker; ``begin`` lets it work."""

    def __init__(self, name: str, place: PostgresLocation, archive: ScriptedArchive, out: Path) -> None:
        gone = "frozen" if name != "frozen" else ""
        address = f"{archive.title}@{archive.host}:{archive.port}"
        arguments = [name, place.url, place.schema, address, str(out), gone]
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.worker_process", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "ready\n"

    def begin(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def finish(self) -> list[tuple[str, str]]:
        """Wait for its end; return what it said about each study."""
        output, _ = self.child.communicate(timeout=TIMEOUT)
        *lines, done = output.splitlines()
        assert (done, self.child.returncode) == ("done", 0)
        return [(word, uid) for word, _, uid in (line.partition(" ") for line in lines)]


Shared = tuple[PostgresLocation, ScriptedArchive, list[DemoStudy]]


@contextmanager
def job(postgres: PostgresServer, *faults: Fault) -> Iterator[Shared]:
    studies = generate_studies(STUDIES)
    place = postgres.location()
    with closing(Ledger(place)) as ledger:
        begin(ledger, [request(row, study.accession) for row, study in enumerate(studies, 1)])
    with ScriptedArchive(studies, faults) as archive:
        yield place, archive, studies


def test_two_workers_do_nothing_twice(postgres: PostgresServer, tmp_path: Path) -> None:
    with job(postgres) as (place, archive, studies):
        workers = [Process(name, place, archive, tmp_path) for name in ("first", "second")]
        for worker in workers:
            worker.begin()
        ended = [worker.finish() for worker in workers]
        assert all(ended), "both have worked"
        assert Counter(ended[0] + ended[1]) == Counter(("ended", study.study_uid) for study in studies)
        queried = Counter(seen.keys["AccessionNumber"] for seen in archive.requests("find", "STUDY"))
        assert queried == dict.fromkeys((study.accession for study in studies), 1)
        fetched = Counter(seen.uids for seen in archive.requests("get"))
        assert set(fetched.values()) == {1}
        assert len(fetched) == STUDIES
    check(place)
    assert not list((tmp_path / ".quarry" / "incoming").iterdir())


def test_the_late_word_of_a_frozen_worker_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    held = Held()
    with job(postgres, held) as (place, archive, _):
        frozen = Process("frozen", place, archive, tmp_path)
        frozen.begin()
        assert held.waits.wait(TIMEOUT)
        os.kill(frozen.child.pid, signal.SIGSTOP)
        other = Process("other", place, archive, tmp_path)
        other.begin()
        assert len(other.finish()) == STUDIES
        before = record(place)
        held.go_on.set()
        os.kill(frozen.child.pid, signal.SIGCONT)
        (late,) = frozen.finish()
        assert late[0] == "lost"
        levels = Counter(seen.level for seen in archive.requests("get"))
        assert levels == {"STUDY": STUDIES, "IMAGE": 1}, "of the study that was cut the rest was fetched"
    assert record(place) == before
    check(place)


def record(place: PostgresLocation) -> list[object]:
    tables = ("tasks", "requests", "instances", "attempts", "claims")
    return [sorted(map(repr, raw_query(place, f"select * from {table}"))) for table in tables]


def check(place: PostgresLocation) -> None:
    with closing(LedgerReader(place)) as reader:
        assert reader.counts().rows_by_status == {OutcomeStatus.COMPLETE: STUDIES}
    assert raw_query(place, "select * from claims") == []
    assert raw_query(place, "select count(*), count(distinct task_id) from attempts") == [(STUDIES, STUDIES)]
