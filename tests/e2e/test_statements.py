"""What the pages for administrators state, against an archive that logs everything it sees.

The pages name these tests next to their statements; :mod:`tests.docs.test_statements` checks that they exist.
"""

from __future__ import annotations

import csv
import socket
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dicom_quarry
from dicom_quarry.demo.dimse_operations import RetrieveOperation
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.synthetic_studies import IMPLICIT_LITTLE, DemoInstance
from dicom_quarry.wire.dimse import VERIFICATION
from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import LoggingArchive, Office, Pause
from tests.peers.process import listens
from tests.scripted.archive import Fault, ScriptedArchive, Seen

ROWS = ("Accession", *(f"QA{number:05d}" for number in range(5)))
UNIQUE_KEYS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2."


@contextmanager
def office(folder: Path, *faults: Fault) -> Iterator[Office]:
    with LoggingArchive(demo_holding(), faults) as archive:
        yield Office(folder, archive)


def kinds(archive: LoggingArchive) -> Counter[str]:
    """The number of requests of each kind and level."""
    return Counter(f"{one.kind} {one.level}".strip() for one in archive.log if one.kind != "associate")


def keys(seen: Seen) -> dict[str, str]:
    """The keys with a value, without the level."""
    ignored = ("QueryRetrieveLevel", "SpecificCharacterSet")
    return {name: value for name, value in seen.keys.items() if value and name not in ignored}


class SendsNot(Fault):
    """Leaves out the last instance of each study when the whole study is requested."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        level = [one.level for one in archive.log if one.kind == "move"][-1]
        return instances[:-1] if level == "STUDY" else instances


# -- docs/for-pacs-administrators.md: what it does to the archive


def test_requests_of_a_job(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        assert at.extract([*ROWS, "NOBODY"], no_diagnosis=True).exit_code == 1
        archive, studies = at.archive, 5
        assert kinds(archive) == {
            "find STUDY": 6,  # one for each row
            "find SERIES": 1,  # until the archive has shown that it does not merge answers
            "find IMAGE": 2 + studies - 1,
            "move STUDY": studies,
        }
        echoes = [one for one in archive.seen.proposals if one.sop_classes == (VERIFICATION,)]
        assert len(echoes) == 1
        for find in archive.requests("find"):
            values = keys(find)
            assert values, "every query has a key"
            assert not any(mark in value for value in values.values() for mark in "*?")
        for find in archive.requests("find", "STUDY"):
            assert keys(find).keys() == {"AccessionNumber"}
        moves = archive.requests("move")
        assert all(keys(move).keys() == {"StudyInstanceUID"} for move in moves)
        assert len({move.uids for move in moves}) == studies, "each study once"
        assert set(archive.seen.destinations) == {"QUARRY"}, "our own AE title"
        before = len(archive.log)
        assert at.extract([*ROWS, "NOBODY"], no_diagnosis=True).exit_code == 1
        assert len(archive.log) == before, "a finished job sends nothing"


def test_a_row_without_a_match_has_at_most_five_more_queries(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        row = "Q-TEN,NOBODY,2019-04-04"
        assert at.extract(["MRN,Accession,StudyDate", row]).exit_code == 1
        finds = [one.level for one in at.archive.requests("find")]
        assert 1 < finds.count("STUDY") <= 5
        assert finds.count("PATIENT") <= 1
        assert all(keys(one) for one in at.archive.requests("find"))


def test_missing_images_are_requested_alone(tmp_path: Path) -> None:
    with office(tmp_path, SendsNot()) as at:
        assert at.extract(ROWS[:2]).exit_code == 0
        moves = at.archive.requests("move")
        first, *others = (move.level for move in moves)
        assert (first, "STUDY" in others) == ("STUDY", False), "never the whole study again"
        assert others


def test_c_get_comes_after_c_move_and_is_shown(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.archive.destinations.clear()
        shown: list[str] = []

        class Observer(dicom_quarry.JobObserver):
            def on_message(self, message: str) -> None:
                shown.append(message)

        assert at.extract(ROWS[:3], observer=Observer()).exit_code == 0
        found = kinds(at.archive)
        assert found["move STUDY"] == 1
        assert found["get STUDY"] == 2
        assert any("C-MOVE failed" in one and "Using C-GET from now on" in one for one in shown)
        assert at.archive.seen.most_open == 2


@pytest.mark.parametrize(("parallel", "most"), [(1, 2), (2, 4), (3, 5)])
def test_number_of_associations(tmp_path: Path, parallel: int, most: int) -> None:
    together = Together(parallel)
    with office(tmp_path, together) as at:
        assert at.extract(ROWS, parallel=parallel).exit_code == 0
        assert at.archive.seen.most_open <= most
        assert together.most == parallel, "as many studies at once as the user wants, and no more"
        assert sum(one.sop_classes[0] != VERIFICATION for one in at.archive.seen.proposals) <= most


class Together(Fault):
    """Waits in each retrieval until as many run as are expected, a moment at most; ``most`` ran at once."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self.most = 0
        self._expected = expected
        self._running = 0
        self._changed = threading.Condition()

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        with self._changed:
            if sent == 0:
                self._running += 1
                self.most = max(self.most, self._running)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.most >= self._expected, timeout=5)
            elif sent == len(archive.catalogue.select(move.query)):
                self._running -= 1


@pytest.mark.parametrize(("retrieve", "outcome"), [("move", "partial"), ("auto", "complete")])
def test_a_study_that_lacks_an_image_keeps_to_two_associations(
    tmp_path: Path, retrieve: str, outcome: str
) -> None:
    # The thread that retrieves lists the study again, and fetches the image by C-GET if it may.
    with office(tmp_path, LosesOne("QA00002")) as at:
        result = at.extract(ROWS[:4], retrieve=retrieve)
        assert [row.outcome.status for row in result.rows()] == ["complete", "complete", outcome]
        assert bool(at.archive.requests("get")) == (retrieve == "auto")
        assert at.archive.seen.most_open == 2


class LosesOne(Fault):
    """Never sends the first instance of a study."""

    def __init__(self, accession: str) -> None:
        super().__init__()
        self._study_uid = next(one.study_uid for one in demo_holding() if one.accession == accession)

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        whole = archive.catalogue.select(QueryIdentifier("STUDY", {"StudyInstanceUID": self._study_uid}))
        return [one for one in instances if one.sop_uid != whole[0].sop_uid]


def test_a_check_with_an_accession(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        done = dicom_quarry.check("main", config=at.settings, accession="QA00003")
        assert not done.failed
        found = kinds(at.archive)
        assert sum(count for kind, count in found.items() if kind.startswith("find")) <= 15
        assert (found["move STUDY"], found["get STUDY"]) == (1, 1), "once by each method"


def test_a_check_that_probes(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        dicom_quarry.check("main", config=at.settings, probe=True)
        assert 0 < kinds(at.archive)["find STUDY"] <= 40
        assert all("-" in keys(one)["StudyDate"] for one in at.archive.requests("find", "STUDY"))


def test_a_letter_sends_nothing_of_its_own(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        done = dicom_quarry.check("main", config=at.settings)
        before = len(at.archive.log)
        assert "PACS" in done.access_request()
        assert len(at.archive.log) == before


def test_what_a_job_records(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.extract(["MRN,Accession", "Q-TEN,QA00003"], protocol="IRB-2026-014")
        state = tmp_path / "out" / ".quarry"
        with (state / "audit.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert [line["event"] for line in lines] == ["started", "study", "ended"]
        assert all("IRB-2026-014" in line.values() for line in lines)
        log = (state / "quarry.log").read_text()
        assert "row 1: complete" in log
        assert not any(word in log for word in ("Q-TEN", "QA00003"))


# -- docs/conformance.md: as a requestor


def test_association_requests(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.extract(ROWS[:2])
        at.archive.destinations.clear()
        dicom_quarry.extract(
            [{"Accession": "QA00004"}], config=at.settings, to=tmp_path / "get", retrieve="get"
        )
        proposals = at.archive.seen.proposals
    for one in proposals:
        assert one.calling == "QUARRY"
        assert one.application_context == "1.2.840.10008.3.1.1.1"
        assert one.max_pdu == 131072
        by_get = STUDY_ROOT + "3" in one.sop_classes
        assert one.negotiates == ({"roles"} if by_get else set()), "nothing else is negotiated"
        assert len(one.sop_classes) <= (128 if by_get else 1)
        if not by_get:
            assert one.transfer_syntaxes == {IMPLICIT_LITTLE}
    used = {one.sop_classes[0] for one in proposals}
    assert used == {VERIFICATION, STUDY_ROOT + "1", STUDY_ROOT + "2", STUDY_ROOT + "3"}


def test_keys_of_queries(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.extract(["MRN,Accession", "Q-TEN,QA00003"], where={"ModalitiesInStudy": "CT"})
        study = at.archive.requests("find", "STUDY")[0]
        returned = {
            "StudyInstanceUID PatientID AccessionNumber StudyDate ModalitiesInStudy StudyDescription",
            "NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances InstanceAvailability",
        }
        assert study.keys.keys() >= set(" ".join(returned).split())
        assert keys(study).keys() == {"PatientID", "AccessionNumber"}
        series, image = at.archive.requests("find", "SERIES")[0], at.archive.requests("find", "IMAGE")[0]
        assert keys(series).keys() == {"StudyInstanceUID"}
        assert series.keys.keys() >= {"SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"}
        assert keys(image).keys() == {"StudyInstanceUID", "SeriesInstanceUID"}
        assert image.keys.keys() >= {"SOPInstanceUID", "SOPClassUID"}


def test_patient_root(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.configure('model = "patient"')
        assert at.extract(["MRN,Accession", "Q-TEN,QA00003"]).exit_code == 0
        assert all("PatientID" in keys(one) for one in at.archive.log if one.kind != "associate")
        used = {one.sop_classes[0] for one in at.archive.seen.proposals} - {VERIFICATION}
        assert used == {"1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"}


# -- docs/security.md


def test_the_port_is_open_while_the_job_runs_and_no_longer(tmp_path: Path) -> None:
    pause = Pause()
    with office(tmp_path, pause) as at, at.start(ROWS[:2]) as run:
        assert not pause.go_on.is_set()
        assert pause.reached.wait(60)
        assert listens(at.port)
        pause.go_on.set()
        assert run.wait().exit_code == 0
        assert not listens(at.port)


def test_by_c_get_alone_no_port_is_open(tmp_path: Path) -> None:
    pause = Pause()
    with office(tmp_path, pause) as at, at.start(ROWS[:2], retrieve="get") as run:
        assert pause.reached.wait(60)
        assert not listens(at.port)
        pause.go_on.set()
        assert run.wait().exit_code == 0


def test_this_computer_alone_may_connect_with_as_aet_ip(tmp_path: Path) -> None:
    pause = Pause()
    with office(tmp_path, pause) as at, at.start(ROWS[:2]) as run:
        assert pause.reached.wait(60)
        address = _own_address()
        if address:
            with pytest.raises(OSError), socket.create_connection((address, at.port), timeout=2):
                pass
        pause.go_on.set()
        run.wait()


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(route.getsockname()[0])


def test_modes_of_all_files(tmp_path: Path) -> None:
    with office(tmp_path) as at:
        at.extract([*ROWS, "NOBODY"])
        dicom_quarry.report(tmp_path / "out", xlsx=True)
    found: dict[str, Any] = {}
    for path in (tmp_path / "out").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        found[path.name] = mode
    assert found.keys() >= {
        "report.csv",
        "report.xlsx",
        "studies.csv",
        "manifest.csv.gz",
        "audit.csv",
        "quarry.log",
    }
