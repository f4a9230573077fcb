"""audit.csv of jobs: who started what, one line a study, and none lost to a crash or a stop."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import RetrieveOperation, Tally
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, outcomes, quarry, status, until
from tests.e2e.job_runs import Job, accessions
from tests.peers.process import wait_for
from tests.scripted import Fault, ScriptedArchive

STUDIES = generate_studies(4, seed=41, images=2)


class HoldsThird(Fault):
    """The third study is not answered before its asker has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = self.released = False

    def respond(self, move: RetrieveOperation, status: int, tally: Tally) -> bool:
        third = move.query.keys["StudyInstanceUID"] == STUDIES[2].study_uid
        if third and not self.released:
            self.reached = True
            wait_for(lambda: not move.is_alive, "the end of the asker", 60)
        return False


def audit(out: Path) -> list[dict[str, str]]:
    with (out / ".quarry" / "audit.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def events(out: Path) -> list[str]:
    return [line["event"] for line in audit(out)]


def test_a_job_and_what_is_done_again(work: Path) -> None:
    with ScriptedArchive(STUDIES) as archive:
        job = Job(work, archive, [*accessions(STUDIES), "NOWHERE"])
        assert job.run("--protocol", "IRB-2026-014").code == 1
        assert events(job.out) == ["started", *["study"] * 4, "ended"]
        started, *taken, ended = audit(job.out)
        assert {line["protocol"] for line in audit(job.out)} == {"IRB-2026-014"}
        assert started["archive"] == str(job.archive)
        assert started["details"].startswith("cohort ")
        assert {line["study_uid"] for line in taken} == {one.study_uid for one in STUDIES}
        assert {(line["outcome"], line["instances"], line["transport"]) for line in taken} == {
            ("complete", "2", "move")
        }
        assert (ended["outcome"], ended["instances"]) == ("finished", "8")
        assert sum(int(line["bytes"]) for line in taken) == int(ended["bytes"])
        assert "4 complete" in ended["details"]
        assert (job.out / ".quarry" / "audit.csv").stat().st_mode & 0o777 == 0o600
        before = (job.out / ".quarry" / "audit.csv").read_bytes()

        assert quarry("retry", job.out).code == 1
        assert (job.out / ".quarry" / "audit.csv").read_bytes().startswith(before)
        assert events(job.out)[6:] == ["retried", "started", "ended"]
        assert audit(job.out)[-1]["protocol"] == "IRB-2026-014"


def test_killed_and_gone_on_with_no_study_is_left_out(work: Path) -> None:
    held = HoldsThird()
    with ScriptedArchive(STUDIES, [held]) as archive:
        job = Job(work, archive, accessions(STUDIES))
        with Running(work / "killed.txt", *job.command()) as running:
            # The end of a study is made durable while the next one comes.
            until(running, "the third study", lambda: held.reached and len(events(job.out)) == 3)
            # A line of the log is written before the record has the outcome.
            until(running, "two outcomes", lambda: status(job.out)["rows_by_outcome"].get("complete") == 2)
            running.kill()
        assert events(job.out) == ["started", "study", "study"]
        held.released = True
        assert job.run().code == 0
    assert outcomes(job.out) == [("complete", "all_listed_stored")] * 4
    assert events(job.out) == ["started", "study", "study", "started", "study", "study", "ended"]
    told = Counter(line["study_uid"] for line in audit(job.out) if line["event"] == "study")
    assert told == {one.study_uid: 1 for one in STUDIES}


def test_an_excluded_study_is_told_of(work: Path) -> None:
    with ScriptedArchive(STUDIES[:2]) as archive:
        job = Job(work, archive, accessions(STUDIES[:2]))
        assert job.run().code == 0
        (work / "optout.csv").write_text(f"Accession\n{STUDIES[0].accession}\n")
        assert job.run("--exclude", work / "optout.csv").code == 1
    (line,) = [one for one in audit(job.out) if one["event"] == "excluded"]
    assert (line["study_uid"], line["row"], line["instances"]) == (STUDIES[0].study_uid, "1", "2")


@pytest.mark.parametrize("text", ["x" * 201])
def test_a_protocol_is_a_name_and_no_novel(work: Path, text: str) -> None:
    (work / "cohort.csv").write_text("Accession\nA1\n")
    done = quarry("extract", "cohort.csv", "--from", "P@127.0.0.1:1", "--to", "out", "--protocol", text)
    assert done.code == 2
    assert "protocol: " in done.err
