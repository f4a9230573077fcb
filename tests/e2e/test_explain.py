"""``quarry explain``: what happened to a row, in words; and to nobody else's eyes who the patient is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import DemoInstance, generate_studies
from dicom_quarry.ledger.history import RowHistory, StudyHistory
from dicom_quarry.reporting.row_history import explain_lines
from tests.e2e.command import quarry
from tests.e2e.job_runs import Job
from tests.scripted import Fault, ScriptedArchive

FOUND, LACKS, APART, DASHED = (
    replace(study, patient=replace(study.patient, patient_id=f"PATIENT-{number}"), accession=f"ACC{number}")
    for number, study in enumerate(generate_studies(4, seed=51, images=4))
)
ROWS = ["ACC0", "ACC1", "ACC2", "AC-C3", "NOWHERE", "ACC0"]


class Spoils(Fault):
    """Of one study an instance never comes; another one's come with another patient ID."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[DemoInstance]) -> Sequence[DemoInstance]:
        return [_other(i) for i in instances if (i.study.study_uid, i.number) != (LACKS.study_uid, 2)]


def _other(instance: DemoInstance) -> DemoInstance:
    if instance.study.study_uid != APART.study_uid:
        return instance
    merged = replace(instance.study.patient, patient_id="MERGED-9")
    return replace(instance, study=replace(instance.study, patient=merged))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that has come to its end: none of these tests changes it."""
    work = tmp_path_factory.mktemp("explain")
    with ScriptedArchive([FOUND, LACKS, APART, DASHED], [Spoils()]) as archive:
        job = Job(work, archive, ROWS)
        assert job.run("--config", job.toml, "--rewrite", "s/-//", "--retrieve", "move").code == 1
    return job.out


def told(out: Path, row: int, *, identified: bool = True) -> str:
    return "\n".join(explain_lines(*history(out, row), with_identifiers=identified))


def history(out: Path, row: int) -> tuple[list[RowHistory], list[StudyHistory]]:
    with closing(api.open_history(out)) as reader:
        found = reader.row_history(row)
        assert found is not None
        return [found], list(reader.study_histories_of_rows([row]))


def test_a_row_that_is_complete(out: Path) -> None:
    text, at = told(out, 1), 0
    for part in (  # in the order of time
        "row 1, line 2 of the table\n  searches for AccessionNumber ACC0",
        "the archive describes it as PATIENT-0, ACC0",
        "queried main for the row by AccessionNumber (STUDY level, study root): 1 answer",
        "queried main for the series and instances of the study "
        "(IMAGE level, study root): 4 answers, complete",
        "round 1, C-MOVE at STUDY level: 4 instances requested, 4 stored",
        "status 0000H: The archive reports success.",
        "proved complete: every instance that the archive lists is stored",
        "row 1: complete (all_listed_stored)",
    ):
        assert part in text[at:], part
        at += text[at:].index(part)


def test_what_is_missing_is_named_and_every_round_is_told(out: Path) -> None:
    text = told(out, 2)
    missing = next(one for one in LACKS.instances() if one.number == 2)
    assert f"missing: 1 instance\n    {missing.sop_uid}" in text
    assert "round 2, C-MOVE at IMAGE level: 1 instance requested, 0 stored" in text
    assert "row 2: partial (instances_missing)" in text
    assert "what to do: run quarry retry" in text


def test_what_is_kept_apart_is_named(out: Path) -> None:
    text = told(out, 3)
    assert "in the folder mismatch, because of other identifiers: 4 files\n    mismatch/MERGED-9/" in text
    assert "row 3: mismatch (stored_differs)" in text


def test_rewrites_and_what_is_near(out: Path) -> None:
    text = told(out, 4)
    assert (
        "searches for AccessionNumber AC-C3\n  if nothing matches, searches for AccessionNumber ACC3" in text
    )
    first, second = text.index("for the row by"), text.index("for the row with rewritten values")
    assert "0 answers" in text[first:second]
    assert "1 answer, complete" in text[second:]
    assert "queried main for similar studies, because no study matched" in told(out, 5)
    assert "no study was found" in told(out, 5)


def test_a_row_that_repeats_another(out: Path) -> None:
    text = told(out, 6)
    assert "same values as row 1" in text
    assert "queried main for the row by" in text


@pytest.mark.parametrize("row", range(1, 7))
def test_redirected_nothing_names_a_patient(out: Path, row: int) -> None:
    texts = [told(out, row, identified=False), quarry("explain", out, "--row", row, "--json").out]
    for text in texts:
        for word in ("PATIENT", "MERGED", "ACC", "AC-C3", "NOWHERE", FOUND.description):
            assert word not in text.replace("AccessionNumber", "")
    assert quarry("explain", out, "--row", row).out == texts[0] + "\n"


def test_a_study_by_its_uid_for_scripts(out: Path) -> None:
    done = quarry("explain", out, "--study", FOUND.study_uid, "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    assert [row["row"] for row in facts["rows"]] == [1, 6]
    (study,) = facts["studies"]
    assert (study["study_uid"], study["rows"], study["stored"]) == (FOUND.study_uid, [1, 6], 4)
    assert study["listings"][0]["result_count"] == 4
    (move,) = study["retrievals"]
    assert (move["level"], move["requested"], move["newly_stored"], move["status"]) == ("STUDY", 4, 4, 0)
    assert facts["rows"][0]["queries"][0]["keys"] == ["AccessionNumber"]


def test_what_is_not_there_is_said(out: Path) -> None:
    for options, said in [
        ((), "Name one row"),
        (("--row", 1, "--study", "1.2"), "Name one row"),
        (("--row", 99), "no row 99"),
        (("--study", "1.2.3"), "no row of this job asks for study 1.2.3"),
    ]:
        done = quarry("explain", out, *options)
        assert (done.code, said in done.err) == (2, True), done.err


def test_a_job_without_a_record_is_explained_as_far_as_known(out: Path, tmp_path: Path) -> None:
    """As a ledger that an older version of Quarry began is."""
    older = tmp_path / "older"
    (older / ".quarry").mkdir(parents=True)
    with (
        closing(sqlite3.connect(out / ".quarry" / "ledger.db")) as ours,
        closing(sqlite3.connect(older / ".quarry" / "ledger.db")) as copy,
    ):
        ours.backup(copy)
        copy.execute("DELETE FROM queries")
        copy.commit()
    text = told(older, 1)
    assert "no record of the queries: an older version of Quarry made them" in text
    assert "round 1, C-MOVE at STUDY level: 4 instances requested, 4 stored" in text
    assert "row 1: complete" in text
