"""``quarry plan``: what is there, without moving it; and an extraction that begins with its answers."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import dicom_quarry
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import QueryIdentifier, Record
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.model import AE
from tests.e2e.command import Done, Running, outcomes, quarry, until
from tests.e2e.conftest import Site
from tests.peers.process import free_port

STUDIES = generate_studies(5, seed=21, images=3)
FORMER = ["PatientID", "StudyInstanceUID", "AccessionNumber", "StudyDescription"]
DETAILED = [
    *FORMER,
    "StudyDate",
    "StudyTime",
    "DeviceSerialNumber",
    "ProtocolName",
    "PerformedProcedureStepDescription",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "AcquisitionDate",
]


class Asked(DemoArchive):
    """Remembers the accessions that it was asked about; holds at question ``hold_at`` until it is stopped."""

    def __init__(self, studies: list[DemoStudy]) -> None:
        super().__init__(studies)
        self.accessions: list[str] = []
        self.hold_at: int | None = None
        self.held = threading.Event()
        self._gate = threading.Event()

    def find(
        self, query: QueryIdentifier, cancelled: Callable[[], bool]
    ) -> Iterator[tuple[int, Record | None]]:
        if query.level == "STUDY":
            self.accessions.append(query.keys.get("AccessionNumber", ""))
            if self.hold_at is not None and len(self.accessions) == self.hold_at:
                self.held.set()
                self._gate.wait()
        yield from super().find(query, cancelled)

    def stop(self) -> None:
        self._gate.set()
        super().stop()


@pytest.fixture
def archive() -> Iterator[Asked]:
    with Asked(STUDIES) as server:
        yield server


class Bench:
    """A cohort, and the two commands that take it."""

    def __init__(self, work: Path, archive: Asked, *rows: str) -> None:
        self.work, self.archive = work, archive
        self.cohort, self.out, self.file = work / "cohort.csv", work / "out", work / "plan.csv"
        self.cohort.write_text("\n".join(["EMPI,Accession", *rows]) + "\n")
        port = free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", port)
        self._from = ("--from", AE(archive.title, archive.host, archive.port))
        self._as = ("--as", f"QUARRY@127.0.0.1:{port}", "--to", self.out)

    @property
    def command(self) -> tuple[object, ...]:
        return ("plan", self.cohort, *self._from)

    def plan(self, *options: object) -> Done:
        return quarry(*self.command, *options)

    def extract(self, *options: object) -> Done:
        return quarry("extract", self.cohort, *self._from, *self._as, "--skip-bad-rows", *options)

    @property
    def ledgers(self) -> list[Path]:
        return list((Path(os.environ["XDG_STATE_HOME"], "quarry", "plans")).glob("*/ledger.db"))

    def age(self, by: timedelta) -> None:
        """Let the plan have been made earlier."""
        (ledger,) = self.ledgers
        with closing(sqlite3.connect(ledger)) as raw, raw:
            then = (datetime.now(UTC) - by).isoformat()
            raw.execute("update job set value = ? where name = 'created'", (then,))


def rows_of(studies: list[DemoStudy]) -> list[str]:
    return [f"{study.patient.patient_id},{study.accession}" for study in studies]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# -- what is told


def test_every_row_is_told(archive: Asked, work: Path) -> None:
    one, two = STUDIES[:2]
    bench = Bench(
        work,
        archive,
        *rows_of([one, two]),
        f"{one.patient.patient_id},NOBODY",
        f"ELSE,{two.accession}",
        *rows_of([one]),
        ",A*",
    )
    done = bench.plan("-o", bench.file)
    assert done.code == 1
    rows = read(bench.file)
    assert [list(rows[0])[:4]] == [FORMER]
    found = [
        (row["row"], row["StudyInstanceUID"], row["same_as_row"]) for row in rows if row["code"] == "found"
    ]
    assert found == [("1", one.study_uid, ""), ("2", two.study_uid, ""), ("5", one.study_uid, "1")]
    first = rows[0]
    told = [first[name] for name in (*FORMER, "date", "modality", "series", "instances", "outcome", "reason")]
    assert told == [
        one.patient.patient_id,
        one.study_uid,
        one.accession,
        one.description,
        one.study_date,
        "CT",
        "1",
        "3",
        "found",
        "",
    ]
    others = {row["row"]: (row["outcome"], row["code"]) for row in rows if row["code"] != "found"}
    assert others == {
        "3": ("not_found", "study_not_found"),
        "4": ("not_found", "near_miss"),
        "6": ("invalid_row", "row_unusable"),
    }
    assert f"another patient ID, {two.patient.patient_id}" in rows[3]["reason"]
    assert "wildcard" in rows[5]["reason"] and rows[5]["PatientID"] == ""
    assert bench.file.stat().st_mode & 0o777 == 0o600
    assert not archive.moves and set(archive.finds) == {"STUDY"}
    assert "6 rows, 3 of them with studies to fetch (1 repeats an earlier row)" in done.out
    assert "2 studies, 6 instances, about 3.2 MB" in done.out
    assert "assuming 5 MB/s" in done.out and "free disk space: " in done.out


@pytest.mark.parametrize("options", [(), ("--json",), ("-o", "plan.csv")])
def test_no_identifiers_where_nobody_looks(archive: Asked, work: Path, options: tuple[str, ...]) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES), f"ELSE,{STUDIES[0].accession}", ",A*")
    done = bench.plan(*options)
    secrets = {part for one in STUDIES for part in (one.patient.patient_id, one.accession, one.study_uid)}
    assert not [secret for secret in (*secrets, "ELSE", "A*") if secret in done.out + done.err]
    for log in Path(os.environ["XDG_STATE_HOME"]).glob("quarry/plans/*/quarry.log"):
        assert not [secret for secret in secrets if secret in log.read_text()]
    assert done.code == 1


def test_json(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    done = bench.plan("--json", "-o", "plan.json")
    assert done.code == 0
    shown, written = json.loads(done.out), json.loads((work / "plan.json").read_text())
    assert shown["summary"]["studies"] == 5 and shown["summary"]["instances"] == 15
    assert shown["summary"]["exit_code"] == 0
    assert [row["studies"][0]["instances"] for row in shown["rows"]] == [3] * 5
    uids = [row["studies"][0]["StudyInstanceUID"] for row in written["rows"]]
    assert uids == [study.study_uid for study in STUDIES]


def test_details(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    assert bench.plan("-o", bench.file).code == 0
    assert bench.plan("--detailed", "-o", bench.file).code == 0
    assert len(archive.accessions) == 10, "the short answers lack the details"
    rows = read(bench.file)
    assert list(rows[0])[:12] == DETAILED
    assert [row["StudyTime"] for row in rows] == [study.study_time for study in STUDIES]
    assert {row["NumberOfStudyRelatedInstances"] for row in rows} == {"3"}
    assert bench.plan("-o", bench.file).code == 0
    assert len(archive.accessions) == 10, "the detailed answers have what the short ones have"


def test_rows_that_are_not_moved(archive: Asked, work: Path) -> None:
    patient = max((one.patient.patient_id for one in STUDIES), key=lambda one: len(of(one)))
    cohort = work / "cohort.csv"
    cohort.write_text(f"EMPI\n{patient}\n")
    command = ("plan", cohort, "--from", f"DEMO@127.0.0.1:{archive.port}", "--whole-patients")
    assert len(of(patient)) > 1
    assert quarry(*command, "--max-studies", 1, "-o", "plan.csv").code == 1
    assert [row["code"] for row in read(work / "plan.csv")] == ["too_many_studies"]
    assert quarry(*command, "-o", "plan.csv").code == 0
    assert {row["StudyInstanceUID"] for row in read(work / "plan.csv")} == of(patient)


def of(patient: str) -> set[str]:
    return {study.study_uid for study in STUDIES if study.patient.patient_id == patient}


# -- what an extraction makes of it


def test_extract_begins_with_the_answers(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES), "X,NOBODY", ",A*")
    assert bench.plan().code == 1
    asked = len(archive.accessions)
    done = bench.extract()
    assert "using the query results of your plan from " in done.out
    assert len(archive.accessions) == asked, "the archive was asked again"
    complete = ("complete", "all_listed_stored")
    ends = [*[complete] * 5, ("not_found", "study_not_found"), ("invalid_row", "row_unusable")]
    assert outcomes(bench.out) == ends
    # The job is its own from here on.
    assert bench.extract().code == 1 and quarry("verify", bench.out).code == 0


def test_a_limit_raised_after_a_look_at_the_plan_asks_about_what_it_allows_alone(
    archive: Asked, work: Path
) -> None:
    patients = sorted({study.patient.patient_id for study in STUDIES}, key=lambda one: len(of(one)))
    assert len(of(patients[0])) <= 2 < len(of(patients[-1]))
    bench = Bench(work, archive)
    bench.cohort.write_text("\n".join(["EMPI", *patients]) + "\n")
    assert bench.plan("--whole-patients", "--max-studies", 2).code == 1
    asked, many = len(archive.accessions), sum(len(of(patient)) > 2 for patient in patients)
    done = bench.extract("--whole-patients", "--yes")
    assert done.code == 0 and "using the query results of your plan from " in done.out
    assert len(archive.accessions) == asked + many


def test_a_lower_limit_does_not_take_answers_that_it_would_not_have_allowed(
    archive: Asked, work: Path
) -> None:
    patient = max((one.patient.patient_id for one in STUDIES), key=lambda one: len(of(one)))
    bench = Bench(work, archive)
    bench.cohort.write_text(f"EMPI\n{patient}\n")
    assert bench.plan("--whole-patients").code == 0
    assert bench.extract("--whole-patients", "--max-studies", 1).code == 1
    assert outcomes(bench.out) == [("failed", "too_many_studies")]


def test_what_could_not_be_answered_is_asked_again(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    assert bench.plan().code == 0
    (ledger,) = bench.ledgers
    with closing(sqlite3.connect(ledger)) as raw, raw:
        raw.execute("delete from request_tasks where row = 2")
        failed = "update requests set state = 'concluded', code = 'query_failed', details = ? where row = 2"
        raw.execute(failed, (json.dumps({"status": "A700"}),))
    asked = len(archive.accessions)
    assert bench.extract().code == 0
    assert archive.accessions[asked:] == [STUDIES[1].accession]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda bench: bench.age(timedelta(hours=23)), False),
        (lambda bench: bench.age(timedelta(hours=25)), True),
        (lambda bench: bench.cohort.write_text(bench.cohort.read_text() + "Y,NOBODY\n"), True),
        (lambda bench: (bench.work / "quarry.toml").write_text("plan-age = '1h'"), False),
        (lambda bench: (bench.work / "quarry.toml").write_text("plan-age = '0s'"), True),
        (lambda bench: (bench.work / "quarry.toml").write_text("max-studies = 5"), True),
        (lambda bench: [one.write_bytes(b"x" * 5000) for one in bench.ledgers], True),
    ],
    ids=["yesterday", "too old", "other cohort", "still young", "never", "other rule", "damaged"],
)
def test_answers_are_used_while_they_hold(
    archive: Asked, work: Path, change: Callable[[Bench], object], again: bool
) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    assert bench.plan().code == 0
    change(bench)
    for run in (bench.extract, bench.plan):
        asked = len(archive.accessions)
        assert run().code in (0, 1)
        assert (len(archive.accessions) > asked) is again, run


# -- interrupted


def test_killed_it_goes_on(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    archive.hold_at = 4
    with Running(work / "run.txt", *bench.command) as running:
        until(running, "the fourth question", archive.held.is_set)
        until(running, "three answers on disk", lambda: settled(bench) == 3)
        running.kill()
    archive._gate.set()
    done = bench.plan("-o", bench.file)
    assert done.code == 0 and "using the query results of your plan from " in done.out
    assert archive.accessions == [one.accession for one in (*STUDIES[:4], STUDIES[3], STUDIES[4])]
    assert [row["StudyInstanceUID"] for row in read(bench.file)] == [one.study_uid for one in STUDIES]


def settled(bench: Bench) -> int:
    (ledger,) = bench.ledgers
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as raw:
        count: int = raw.execute("select count(*) from requests where state = 'resolved'").fetchone()[0]
    return count


def test_stopped_it_says_so(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    archive.hold_at = 2
    with Running(work / "run.txt", *bench.command) as running:
        until(running, "the second question", archive.held.is_set)
        running.interrupt()
        until(running, "the stop", lambda: "stopping" in running.output)
        archive._gate.set()
        assert running.wait() == 4
    assert "run the same command again to continue" in running.output
    assert len(archive.accessions) == 2, "what was asked is heard out, and nothing more asked"
    assert bench.plan().code == 0


def test_the_window_holds(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES))
    now = datetime.now(UTC)
    window = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    (work / "quarry.toml").write_text(
        f'[archive.main]\naddress = "DEMO@127.0.0.1:{archive.port}"\nwindow = "{window}"\ntime-zone = "UTC"\n'
    )
    with Running(work / "run.txt", "plan", bench.cohort, "--from", "main") as running:
        until(running, "the wait", lambda: "outside the window" in running.output)
        running.interrupt()
        assert running.wait() == 4
    assert not archive.accessions


# -- Orthanc, and from a notebook


def test_orthanc(orthanc: Site, work: Path) -> None:
    holding = orthanc.holding
    cohort = work / "cohort.csv"
    cohort.write_text("\n".join(["StudyInstanceUID", *holding.studies, "1.2.3.4"]) + "\n")
    done = quarry("plan", cohort, "--from", orthanc.ae, "--detailed", "-o", "plan.csv")
    assert done.code == 1
    rows = read(work / "plan.csv")
    assert list(rows[0])[:12] == DETAILED
    assert {row["StudyInstanceUID"]: row["PatientID"] for row in rows[:-1]} == {
        uid: held.patient_id.strip() for uid, held in holding.studies.items()
    }
    instances = {row["StudyInstanceUID"]: int(row["NumberOfStudyRelatedInstances"]) for row in rows[:-1]}
    assert instances == {uid: len(held.sop_uids) for uid, held in holding.studies.items()}
    assert {row["StudyTime"] for row in rows if row["PatientID"].startswith("Q-")} == {"101500"}
    assert (rows[-1]["outcome"], rows[-1]["code"]) == ("not_found", "study_not_found")


def test_from_a_notebook(archive: Asked, work: Path) -> None:
    bench = Bench(work, archive, *rows_of(STUDIES), "X,NOBODY")
    ae = f"DEMO@127.0.0.1:{archive.port}"
    plan = dicom_quarry.plan(bench.cohort, archive=ae)
    assert (plan.exit_code, plan.summary.studies, plan.summary.instances) == (1, 5, 15)
    assert [row.outcome.code if row.outcome else len(row.studies) for row in plan.rows()] == [
        1, 1, 1, 1, 1, "study_not_found",
    ]  # fmt: skip
    plan.write(bench.file)
    assert len(read(bench.file)) == 6
