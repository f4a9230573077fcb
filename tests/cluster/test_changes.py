"""A job that is changed while two workers work on it: table, exclusion list, failures, releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.demo.query_matching import Catalogue
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import Running, quarry, status, until
from tests.e2e.job_runs import accessions
from tests.peers.process import wait_for


def let_go(site: Site, watching: Running, moves: int = 2) -> None:
    """Leave a job to the workers, with so many moves that are on hold."""
    with watching:
        until(watching, f"{moves} moves", lambda: site.archive.now == moves)
        watching.interrupt()
        assert watching.wait() == 4, watching.output


def test_a_changed_table_and_exclusion_list_hold_for_all_workers(site: Site) -> None:
    for title in ("W1", "W2"):
        site.start_worker(title)
    site.archive.hold = True
    let_go(site, site.start("trial", STUDIES[:6]))
    in_transfer = next(one for one in STUDIES if site.archive.moves[one.study_uid])
    waiting = next(one for one in STUDIES if not site.archive.moves[one.study_uid])
    excluded = site.work / "excluded.csv"
    excluded.write_text("\n".join(["Accession", *accessions([in_transfer, waiting])]) + "\n")
    # The same command with other files: a longer table, and a list.
    with site.start("trial", STUDIES[:8], "--update", "--exclude", excluded) as changed:
        begun = "the workers of the database fetch"  # the file has the words of the first command, too
        until(changed, "the workers", lambda: changed.output.count(begun) == 2)
        assert "2 rows added" in changed.output
        excluded.unlink()  # workers have it from the record
        site.archive.hold = False
        assert changed.wait() == 1, changed.output
    outcomes = dict(zip(accessions(STUDIES[:8]), site.outcomes("trial"), strict=True))
    (stored,), (never,) = accessions([in_transfer]), accessions([waiting])
    assert {outcomes.pop(stored), outcomes.pop(never)} == {"excluded"}
    assert set(outcomes.values()) == {"complete"}
    assert not site.archive.moves[waiting.study_uid]
    assert set(site.archive.moves.values()) == {1}


@pytest.mark.cluster
def test_failed_rows_are_tried_again_while_workers_fetch_the_others(site: Site) -> None:
    for title in ("W1", "W2"):
        site.start_worker(title)
    site.archive.catalogue = Catalogue(STUDIES[:-1])
    site.archive.hold = True
    let_go(site, site.start("trial", STUDIES))
    wait_for(lambda: status(Path("job:trial"))["rows_by_outcome"].get("not_found") == 1, "the failure", 60)
    site.archive.catalogue = Catalogue(STUDIES)
    with Running(site.work / "retry.txt", "retry", "job:trial") as retry:
        until(retry, "its start", lambda: "1 row or study is tried again" in retry.output)
        site.archive.hold = False
        assert retry.wait() == 0, retry.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert set(site.archive.moves.values()) == {1}


@pytest.mark.cluster
def test_studies_are_released_while_workers_fetch_the_others(site: Site) -> None:
    for title in ("W1", "W2"):
        site.start_worker(title)
    site.archive.hold = True
    let_go(site, site.start("trial", STUDIES))
    site.archive.let_through = set(site.archive.moves)
    wait_for(lambda: status(Path("job:trial"))["studies_complete"] == 2, "a study of each", 60)
    released = quarry("release", "job:trial", "--delete")
    assert released.code == 0, released.err
    pruned = quarry("prune", "job:trial")
    assert pruned.code == 3
    assert "prune when it has ended" in pruned.err
    site.archive.hold = False
    assert site.run("trial", STUDIES).code == 0
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert set(site.archive.moves.values()) == {1}
    assert status(Path("job:trial"))["studies_released"] == 2
