"""Rows that left the table: their studies are counted, moved away on request, and fetched if they return."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import dicom_quarry
from tests.mistakes.commands import Shell

ALL = "Accession\nQA00003\nQA00013\nQA00014\n"
FEWER = "Accession\nQA00003\n"


def images(folder: Path) -> set[str]:
    """The images below a folder, without Quarry's own folder."""
    paths = (one.relative_to(folder) for one in folder.rglob("*.dcm"))
    return {str(one) for one in paths if one.parts[0] != ".quarry"}


def audit_events(shell: Shell) -> list[str]:
    with (shell.out / ".quarry" / "audit.csv").open(encoding="utf-8", newline="") as stream:
        return [f"{one['event']} {one['details']}" for one in csv.DictReader(stream)]


def dropped(shell: Shell) -> set[str]:
    """Extract three rows, then update to one; return the images before."""
    shell.table(ALL)
    assert shell.extract().code == 0
    before = images(shell.out)
    shell.table(FEWER)
    done = shell.extract("--update")
    assert done.code == 0, done.text
    assert "0 rows added, 2 removed" in done.text
    assert "2 stored studies (4 files) belong to no row of the table any more" in done.text
    assert "to move them away: quarry prune out" in done.text
    assert images(shell.out) == before, "nothing is moved without the command"
    return before


def test_rows_that_left_are_moved_away_and_never_deleted(shell: Shell) -> None:
    before = dropped(shell)
    done = shell.quarry("prune", "out")
    assert done.code == 0
    assert (
        "2 studies that no row requests: 4 files" in done.text and "moved to out/.quarry/pruned" in done.text
    )
    kept, moved = images(shell.out), images(shell.out / ".quarry" / "pruned")
    assert kept | moved == before and len(moved) == 4 and not kept & moved
    assert {Path(one).parts[0] for one in moved}.isdisjoint(p.name for p in shell.out.iterdir())
    events = [one for one in audit_events(shell) if one.startswith("pruned")]
    assert events == ["pruned no row requests it: files are moved to .quarry/pruned"] * 2
    assert shell.quarry("verify", "out").code == 0
    assert "1 study, 1 of them complete" in shell.quarry("report", "out").text
    again = shell.quarry("prune", "out")
    assert again.code == 0 and "Nothing to do" in again.text
    assert "belong to no row" not in shell.extract().text


def test_a_row_that_returns_is_fetched_again(shell: Shell) -> None:
    before = dropped(shell)
    assert shell.quarry("prune", "out", "--delete").code == 0
    assert not (shell.out / ".quarry" / "pruned").exists()
    assert len(images(shell.out)) == len(before) - 4
    assert any(one.endswith("files are deleted") for one in audit_events(shell))
    shell.table(ALL)
    done = shell.extract("--update")
    assert done.code == 0 and shell.outcomes() == ["complete"] * 3, done.text
    assert images(shell.out) == before
    assert shell.quarry("verify", "out").code == 0


def test_released_studies_stay_released(shell: Shell) -> None:
    shell.table(ALL)
    assert shell.extract().code == 0
    uids = {row["Accession"]: row["quarry_study_uids"] for row in shell.report()}
    assert shell.quarry("release", "out", "--study", uids["QA00013"], "--delete").code == 0
    shell.table(FEWER)
    done = shell.extract("--update")
    assert "1 stored study (2 files) belongs to no row" in done.text
    assert "1 study that no row requests: 2 files" in shell.quarry("prune", "out").text
    shell.table(ALL)
    assert shell.extract("--update").code == 0
    stored = images(shell.out)
    assert not any(uids["QA00013"] in one for one in stored), "a released study is not fetched again"
    assert any(uids["QA00014"] in one for one in stored)


def test_rows_that_wait_may_need_the_studies(shell: Shell) -> None:
    dropped(shell)
    with closing(sqlite3.connect(shell.out / ".quarry" / "ledger.db")) as record, record:
        # As after a run that was interrupted before it searched for the row.
        record.execute("DELETE FROM request_tasks")
        record.execute("UPDATE requests SET state = 'waiting'")
    refused = shell.quarry("prune", "out")
    assert refused.code == 2
    assert "1 row of this job has not been searched for yet" in refused.text
    assert "run the job first, with quarry resume out" in refused.text
    done = shell.quarry("resume", "out")
    assert done.code == 0 and "2 stored studies (4 files) belong to no row" in done.text
    assert "2 studies that no row requests" in shell.quarry("prune", "out").text


def test_a_part_of_a_study_that_is_not_requested_any_more(shell: Shell) -> None:
    shell.table(FEWER)
    assert shell.extract().code == 0
    whole = images(shell.out)
    study, series = next(iter(sorted(whole))).split("/")[1:3]
    shell.table(f"StudyInstanceUID,SeriesInstanceUID\n{study},{series}\n")
    assert shell.extract("--update").code == 0
    assert images(shell.out) == whole
    assert "1 study that no row requests: " in shell.quarry("prune", "out").text
    assert images(shell.out) == {one for one in whole if series in one} != whole
    assert shell.quarry("verify", "out").code == 0


def test_a_study_that_another_row_requests_stays(shell: Shell) -> None:
    shell.table("MRN,Accession\nQ-0013,QA00013\n,QA00013\n")
    assert shell.extract().code == 0
    before = images(shell.out)
    shell.table("MRN,Accession\n,QA00013\n")
    done = shell.extract("--update")
    assert done.code == 0 and "belongs to no row" not in done.text
    assert "Nothing to do" in shell.quarry("prune", "out").text and images(shell.out) == before


def test_a_folder_without_a_job(shell: Shell) -> None:
    (shell.folder / "empty").mkdir()
    refused = shell.quarry("prune", "empty")
    assert refused.code == 2 and "empty" in refused.text


def test_python_prunes_too(shell: Shell) -> None:
    dropped(shell)
    pruned = dicom_quarry.prune(shell.out)
    assert [one.files for one in pruned] == [2, 2]
