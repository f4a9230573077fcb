"""Faults that need more than one run, or more than one archive, or a hand at the right moment."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dicom_quarry import api
from dicom_quarry.config.settings import load_settings
from dicom_quarry.demo.dimse_operations import SUCCESS, MoveOperation, Tally
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy
from dicom_quarry.errors import InputError, StartError
from dicom_quarry.extraction.runner import JobResult, Runner
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import Snapshot
from dicom_quarry.store import instance_store as store_files
from tests.e2e.command import check_folder, files
from tests.faults.documented_tests import shows
from tests.faults.scenario import COMPLETE, PENDING, STUDIES, ArchiveRequests, by_accession
from tests.faults.scenario_runner import Stage, address, count_requests, outcomes, stored
from tests.peers.process import free_port
from tests.scripted import faults
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.faults import PERMANENT
from tests.scripted.find_faults import FindStatus
from tests.scripted.store_faults import MORE

ONE = STUDIES[:1]


#: C-MOVE requests until three studies gave nothing, the first ones perhaps again.
AT_MOST = 15


def archive_of(
    stage: Stage, studies: Sequence[DemoStudy], *switched_on: Fault, title: str = "SCRIPTED"
) -> Any:
    return ScriptedArchive(
        studies, switched_on, title=title, destinations={"QUARRY": ("127.0.0.1", stage.port)}
    )


@shows(
    7,
    "the archive does not know the destination (A801), and the job is tried seven times meanwhile",
    "blames no study: all are fetched once it is registered",
)
def test_unknown_destination_in_many_runs(stage: Stage) -> None:
    with archive_of(stage, STUDIES, faults.MoveStatus(0xA801)) as archive:
        for _ in range(7):
            result = stage.extract(by_accession(), {"main": address(archive)}, {})
            assert (outcomes(result), result.exit_code) == ([PENDING, PENDING], 4)
        archive.faults.clear()
        result = stage.extract(by_accession(), {"main": address(archive)}, {})
    assert outcomes(result) == [COMPLETE, COMPLETE]


@shows(
    1,
    "the association is rejected for good at the very start",
    "does not start, and shows the reason (exit 3)",
)
def test_rejected_for_good_at_the_start(stage: Stage) -> None:
    with archive_of(stage, STUDIES, faults.Reject(PERMANENT)) as archive:
        with pytest.raises(StartError, match="cannot be used"):
            stage.extract(by_accession(), {"main": address(archive)}, {})
        assert count_requests(archive.log, STUDIES) == ArchiveRequests(("", ""), (0, 0, 0), 1)
    assert files(stage.out) == set()


@shows(
    2,
    "the archive goes away in mid-job and never comes back (--give-up-after)",
    "probes at growing intervals, then stops; the rows stay pending, and the next run goes on",
)
def test_the_archive_does_not_come_back(stage: Stage) -> None:
    gone = _Gone(STUDIES[1])
    with archive_of(stage, STUDIES, gone) as archive:
        main = {"main": address(archive)}
        result = stage.extract(by_accession(), main, {}, give_up_after=0.5)
    assert (outcomes(result), result.exit_code) == ([COMPLETE, PENDING], 4)
    assert stored(stage.out, STUDIES) == (4, 0, 0)
    assert count_requests(archive.log, STUDIES, like=ArchiveRequests(finds=None)).moves == ("STUDY", "STUDY")
    with archive_of(stage, STUDIES) as again:
        result = stage.extract(by_accession(), {"main": address(again)}, {}, archive_moved=True)
        assert count_requests(again.log, STUDIES) == ArchiveRequests(("", "STUDY"), (0, 1, 2), 3)
    assert (outcomes(result), result.exit_code) == ([COMPLETE, COMPLETE], 0)
    check_folder(stage.out)


class _Gone(Fault):
    """The whole archive ends when a study is requested."""

    def __init__(self, study: DemoStudy) -> None:
        super().__init__()
        self._uid = study.study_uid

    def move(self, archive: ScriptedArchive, move: MoveOperation) -> bool:
        if self._uid not in move.query.values("StudyInstanceUID"):
            return False
        threading.Thread(target=archive.stop).start()
        return True


@shows(
    6,
    "C-CANCEL is ignored",
    "Ctrl-C twice: cancels, waits a little, aborts the association; the next run retrieves only the rest",
)
def test_a_cancel_that_is_ignored(stage: Stage) -> None:
    switched_on = (faults.IgnoreCancel(), faults.Silence(3, 600.0, times=1))
    with archive_of(stage, ONE, *switched_on) as archive:
        main = {"main": address(archive)}
        end = _run(stage, main, lambda runner, _snapshot: len(files(stage.out)) == 3 and _twice(runner))
        assert not end.counts.is_finished
        assert stored(stage.out, ONE) == (3, 0)
        result = stage.extract(by_accession(ONE), main, {})
        assert count_requests(archive.log, ONE) == ArchiveRequests(("STUDY IMAGE:1",), (1, 2, 4), 6)
    assert outcomes(result) == [COMPLETE]
    check_folder(stage.out)


def _twice(runner: Runner) -> bool:
    """Ctrl-C, and again."""
    runner.queries.stop()
    runner.queries.stop()
    return True


def _run(stage: Stage, archives: dict[str, Any], tick: Callable[[Runner, Snapshot], object]) -> JobResult:
    """A run of the cohort's first study with a hand on the runner."""

    class Hand(JobObserver):
        def on_progress(self, snapshot: Snapshot) -> None:
            tick(runner, snapshot)

    flags = {"from": ",".join(archives), "to": str(stage.out), "as": stage.local, "keep_free": 0}
    runner = api.make_runner(load_settings(stage.config(archives), flags), Hand())
    return runner.extract(stage.cohort(by_accession(ONE)))


@shows(
    9,
    "instances come when their study was given up, and the job goes on",
    "takes the study up again, lists it, and finds it complete: nothing is retrieved twice",
)
def test_late_after_the_end_of_the_task(stage: Stage) -> None:
    late = _LateAt(STUDIES[0], STUDIES[1])
    with archive_of(stage, STUDIES, late) as archive:
        result = stage.extract(by_accession(), {"main": address(archive)}, {"settle": 0.1})
        moves = count_requests(
            archive.log, STUDIES, like=ArchiveRequests(finds=None, associations=None)
        ).moves
    assert outcomes(result) == [COMPLETE, COMPLETE]
    assert any("did not arrive" in message for message in stage.messages), "it was given up first"
    assert moves == (late.requests_before, "STUDY")
    check_folder(stage.out)


@shows(
    9,
    "instances come when the last study was given up, and the job is about to end",
    "waits for the sender before the receiver stops, takes the study up again, and finds it complete",
)
def test_late_at_the_end_of_the_job(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicom_quarry.extraction.engine import Engine

    late = _LateAt(STUDIES[0], None)
    more = Engine._wait_for_late_work

    def come_first(*arguments: Any) -> bool:
        late.send()
        return more(*arguments)

    monkeypatch.setattr(Engine, "_wait_for_late_work", come_first)
    with archive_of(stage, ONE, late) as archive:
        result = stage.extract(by_accession(ONE), {"main": address(archive)}, {"settle": 0.1})
        moves = count_requests(archive.log, ONE, like=ArchiveRequests(finds=None, associations=None)).moves
    assert outcomes(result) == [COMPLETE]
    assert any("did not arrive" in message for message in stage.messages), "it was given up first"
    assert moves == (late.requests_before,)
    check_folder(stage.out)


class _LateAt(Fault):
    """Half of a study is sent, and claimed to be all; the rest comes when another study is requested."""

    requests_before = "STUDY SERIES IMAGE:2 IMAGE:1 IMAGE:1"

    def __init__(self, study: DemoStudy, moment: DemoStudy | None) -> None:
        super().__init__()
        self._study, self._moment = study, moment
        self._sent = False
        self._send: Callable[[], object] = lambda: None

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        place: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        requested = move.query.values("StudyInstanceUID")
        if self._moment is not None and self._moment.study_uid in requested:
            self.send()
            return False
        if not self._sent:
            self._sent = True
            rest = instances[2:]
            self._send = lambda: faults.store(archive, move, place, rest)
            faults.store(archive, move, place, instances[:2])
        move.respond(SUCCESS, Tally(0, completed=len(instances)))
        return True

    def send(self) -> None:
        """Return the instances that are still to come."""
        send, self._send = self._send, lambda: None
        send()


@shows(
    12,
    "a study is not in the first archive (--from main,old)",
    "queries the next archive for the rows that the first does not know, and for no other",
)
def test_several_archives_in_order(stage: Stage) -> None:
    with (
        archive_of(stage, STUDIES[:1], title="MAIN") as main,
        archive_of(stage, STUDIES, title="OLD") as old,
    ):
        archives = {"main": address(main), "old": address(old)}
        result = stage.extract(by_accession() + "NOBODY\n", archives, {}, diagnosis=False)
        assert count_requests(main.log, STUDIES) == ArchiveRequests(("STUDY", ""), (3, 1, 2), 3)
        assert count_requests(old.log, STUDIES) == ArchiveRequests(("", "STUDY"), (2, 1, 2), 3)
    assert outcomes(result) == [COMPLETE, COMPLETE, ("not_found", "study_not_found")]
    assert stored(stage.out, STUDIES) == (4, 4, 0)
    check_folder(stage.out)


@shows(
    12,
    "the first of two archives cannot answer a query, while the second could",
    "does not take that for 'not found': the row failed, and the second is not queried in its place",
)
def test_the_first_of_several_archives_fails(stage: Stage) -> None:
    with (
        archive_of(stage, ONE, FindStatus(0xC000), title="MAIN") as main,
        archive_of(stage, ONE, title="OLD") as old,
    ):
        result = stage.extract(by_accession(ONE), {"main": address(main), "old": address(old)}, {})
        assert count_requests(old.log, ONE) == ArchiveRequests(("",), (0, 0, 0), 1)
        assert count_requests(main.log, ONE) == ArchiveRequests(("",), (3, 0, 0), 2)
    assert outcomes(result) == [("failed", "query_failed")]


@shows(
    15,
    "images carry another patient ID, and a person accepts that (--accept-mismatch)",
    "brings them into the tree; they are not fetched again",
)
def test_a_mismatch_is_accepted_later(stage: Stage) -> None:
    with archive_of(stage, STUDIES, faults.OtherPatient("MERGED")) as archive:
        main = {"main": address(archive)}
        assert stage.extract(by_accession(), main, {}).exit_code == 1
        assert stored(stage.out, STUDIES) == (0, 0, 8)
        archive.log.clear()
        result = stage.extract(by_accession(), main, {}, accept_mismatch=True)
        assert count_requests(
            archive.log, STUDIES, like=ArchiveRequests(associations=None)
        ) == ArchiveRequests(("", ""), (0, 2, 4), None)
    assert outcomes(result) == [COMPLETE, COMPLETE]
    assert stored(stage.out, STUDIES) == (4, 4, 0)
    check_folder(stage.out)


@shows(
    16,
    "values with matching characters, without --skip-bad-rows",
    "refuses the table and names the rows; the archive gets no query",
)
def test_matching_characters_are_refused(stage: Stage) -> None:
    with archive_of(stage, STUDIES) as archive:
        with pytest.raises(InputError, match="skip_bad_rows=True"):
            stage.extract(by_accession() + "A*\n", {"main": address(archive)}, {})
        assert archive.log == []


@shows(
    25,
    "the disk is full while instances arrive",
    "refuses them (A700), keeps nothing half-written, backs off and tries again",
)
def test_the_disk_is_full_for_a_while(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = store_files._write_all, [3]

    def full(fd: int, buffers: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, buffers)

    monkeypatch.setattr(store_files, "_write_all", full)
    with archive_of(stage, ONE) as archive:
        result = stage.extract(by_accession(ONE), {"main": address(archive)}, {})
        assert count_requests(archive.log, ONE) == ArchiveRequests(("STUDY SERIES IMAGE:1",), (1, 1, 2), 3)
    assert outcomes(result) == [COMPLETE]
    check_folder(stage.out)


@shows(
    25,
    "the free disk space is below keep-free",
    "retrieves nothing, shows what it waits for, and continues by itself when there is enough space",
)
def test_too_little_room_pauses_the_job(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, looks = shutil.disk_usage, [0]

    def little(path: Any) -> Any:
        looks[0] += 1
        return replace_free(usage(path), 10 if looks[0] < 6 else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", little)
    with archive_of(stage, ONE) as archive:
        result = stage.extract(by_accession(ONE), {"main": address(archive)}, {}, keep_free=1)
        assert count_requests(archive.log, ONE).moves == ("STUDY",)
    text = " ".join(stage.messages)
    assert text.index("disk full") < text.index("there is enough free disk space again")
    assert outcomes(result) == [COMPLETE]
    check_folder(stage.out)


def replace_free(usage: Any, free: int) -> Any:
    return usage._replace(free=free)


@shows(
    28,
    "we are registered under another port, where nothing listens, and that is put right",
    "stops and shows what to check; run again, it continues with what is missing",
)
def test_registered_under_another_port(stage: Stage) -> None:
    with archive_of(stage, MORE) as archive:
        archive.destinations["QUARRY"] = ("127.0.0.1", free_port())
        main = {"main": address(archive)}
        result = stage.extract(by_accession(MORE), main, {})
        assert (outcomes(result), result.exit_code) == ([PENDING] * 4, 4)
        assert len(archive.requests("move")) <= AT_MOST
        archive.destinations["QUARRY"] = ("127.0.0.1", stage.port)
        result = stage.extract(by_accession(MORE), main, {})
    assert outcomes(result) == [COMPLETE] * 4
    check_folder(stage.out)


@shows(
    11,
    "one instance comes twice with other content, and Quarry is killed before the study is concluded",
    "the conflict is found again on disk, and the study is not called complete",
)
def test_a_conflict_outlives_a_crash(stage: Stage) -> None:
    switched_on = (faults.Duplicates(changed=True), faults.Silence(7, 600.0, times=1))
    with archive_of(stage, ONE, *switched_on) as archive:
        main = {"main": address(archive)}
        end = _run(stage, main, lambda runner, _snapshot: len(files(stage.out)) == 7 and _twice(runner))
        assert not end.counts.is_finished
        result = stage.extract(by_accession(ONE), main, {})
    assert outcomes(result) == [("unverified", "content_conflict")]
    assert len(files(stage.out)) == 7
