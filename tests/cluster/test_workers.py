"""Whole jobs on several workers, each a process of its own: as on one host, whatever happens to a worker."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.e2e.command import Running, quarry
from tests.peers.process import free_port, wait_for
from tests.postgres_server import PostgresServer

STUDIES = generate_studies(12, seed=20, images=2)


@pytest.fixture
def site(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES) as site:
        yield site


def test_two_workers_do_a_job_as_one_host_does(site: Site) -> None:
    for title in ("W1", "W2"):
        site.start_worker(title, "--parallel", 2)
    done = site.run("trial", STUDIES)
    assert done.code == 0, done.out + done.err
    assert "the workers of the database fetch the studies" in done.out
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert len(site.files("trial")) == sum(len(list(study.instances())) for study in STUDIES)
    assert set(site.archive.moves.values()) == {1}
    assert len(site.archive.moves) == len(STUDIES)


def test_a_killed_worker_costs_a_repeated_move_and_nothing_else(site: Site) -> None:
    first = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        first.kill()
        site.start_worker("W2")
        site.archive.hold = False
        assert watching.wait() == 0, watching.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert sorted(site.archive.moves.values()) == [1] * (len(STUDIES) - 1) + [2]


def test_letting_go_leaves_the_job_to_the_workers_and_a_stop_ends_it(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        watching.interrupt()
        assert watching.wait() == 4, watching.output
    assert "running (the workers of the database)" in quarry("status", "job:trial").out
    stopping = Running(site.work / "stop.txt", "stop", "job:trial", "--now")
    with stopping:
        assert stopping.wait() == 0, stopping.output
    assert "stopped" in stopping.output
    assert site.archive.now == 0, "the archive was told to cancel"
    assert "Not finished, and not running" in quarry("status", "job:trial").out
    site.archive.hold = False
    assert site.run("trial", STUDIES).code == 0
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)


def test_a_small_job_does_not_wait_for_a_large_one(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("large", STUDIES[:10]) as large:
        wait_for(lambda: site.archive.now == 1, "a move of the large one", 60)
        with site.start("small", STUDIES[10:]) as small:
            wait_for(lambda: site.count_tokens("small") > 0, "the small one's turn", 60)
            site.archive.hold = False
            assert small.wait() == 0, small.output
            assert large.wait() == 0, large.output
    moved = [seen.uids[0] for seen in site.archive.requests("move")]
    last_of_small = max(moved.index(study.study_uid) for study in STUDIES[10:])
    assert last_of_small < len(moved) - 2, moved
    assert set(site.archive.moves.values()) == {1}


def test_a_database_that_is_killed_is_waited_for_and_nothing_is_moved_twice(
    site: Site, server: PostgresServer
) -> None:
    worker = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        server.kill()
        site.archive.hold = False
        server.start()
        assert watching.wait() == 0, watching.output + worker.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert set(site.archive.moves.values()) == {1}


def test_a_worker_that_was_frozen_changes_nothing_when_it_goes_on(site: Site) -> None:
    frozen = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        frozen.signal(signal.SIGSTOP)
        site.start_worker("W2")
        site.archive.hold = False
        assert watching.wait() == 0, watching.output
        frozen.signal(signal.SIGCONT)
    frozen.terminate()
    assert frozen.wait() == 0, frozen.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert len(site.files("trial")) == sum(len(list(study.instances())) for study in STUDIES)
    assert quarry("verify", "job:trial").code == 0


def test_a_worker_that_is_stopped_ends_what_it_has_begun_and_leaves_the_list(site: Site) -> None:
    worker = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        worker.terminate()
        wait_for(lambda: "ending what it has begun" in quarry("cluster", "status").out, "its word", 60)
        site.archive.hold = False
        assert worker.wait() == 0, worker.output
        assert "0 workers" in quarry("cluster", "status").out
        site.start_worker("W2")
        assert watching.wait() == 0, watching.output
    assert set(site.archive.moves.values()) == {1}


def test_a_second_worker_of_the_same_title_is_refused_and_so_is_one_without_a_database(site: Site) -> None:
    site.start_worker("W1")
    settings = (site.work / "W1" / "quarry.toml").read_text()
    other = site.work / "other"
    other.mkdir()
    (other / "quarry.toml").write_text(settings)
    command = ["worker", "--as", f"W1@127.0.0.1:{free_port()}", "--root", site.root]
    refused = quarry(*command, cwd=other)
    assert refused.code == 3
    assert "a worker W1@" in refused.err
    assert "runs already" in refused.err
    (other / "quarry.toml").write_text(settings.split("[cluster]")[0])
    lost = quarry(*command, cwd=other)
    assert lost.code == 2
    assert "does not name the database of the jobs" in lost.err


def test_the_status_of_the_database_names_workers_jobs_and_what_is_in_work(site: Site) -> None:
    site.start_worker("W1", "--parallel", 2)
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 2, "two moves", 60)
        shown = quarry("cluster", "status").out
        assert "1 worker in postgresql://" in shown
        assert "2 x studies:main" in shown
        assert "job:trial  2 in work, weight 1" in shown
        facts = json.loads(quarry("cluster", "status", "--json").out)
        assert [job["name"] for job in facts["jobs"]] == ["trial"]
        site.archive.hold = False
        assert watching.wait() == 0, watching.output
    assert "0 jobs with the workers" in quarry("cluster", "status").out
