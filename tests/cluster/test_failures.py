"""Workers that are killed, frozen or stopped, and a database that goes away (make test-cluster)."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.deaf import DEAF
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import Running, quarry, status, until
from tests.e2e.job_runs import accessions
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.cluster


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


def test_a_small_job_does_not_wait_for_a_large_one(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("large", STUDIES[:10]) as large:
        wait_for(lambda: site.archive.now == 1, "a move of the large one", 60)
        with site.start("small", STUDIES[10:]) as small:
            wait_for(lambda: "job:small" in quarry("cluster", "status").out, "the small one", 60)
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


def test_a_second_signal_cancels_what_a_worker_transfers(site: Site) -> None:
    worker = site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        worker.terminate()
        wait_for(lambda: "ending what it has begun" in quarry("cluster", "status").out, "its word", 60)
        worker.terminate()
        assert worker.wait() == 0, worker.output
        wait_for(lambda: site.archive.now == 0, "the cancel", 60)
        site.archive.hold = False
        site.start_worker("W2")
        assert watching.wait() == 0, watching.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)


def test_a_database_that_is_away_for_longer_than_a_lease_is_waited_for(
    site: Site, server: PostgresServer
) -> None:
    worker = site.start_worker("W1")
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.moves.total() >= 2, "two moves", 60)
        server.kill()
        time.sleep(5)  # longer than vanished-after
        server.start()
        assert watching.wait() == 0, watching.output + worker.output
    assert "Traceback" not in worker.output
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)


def test_an_archive_that_does_not_know_a_worker_takes_it_off_the_archive_alone(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES, settings='retrieve = "move"') as site:
        site.start_worker("UNKNOWN", is_known=False)
        site.start_worker("W2")
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: "archive main: " in quarry("cluster", "status").out, "its word", 60)
            site.archive.hold = False
            assert watching.wait() == 0, watching.output
        assert site.outcomes("trial") == ["complete"] * len(STUDIES)


def test_files_that_a_worker_has_left_are_fetched_again_since_they_may_be_torn(site: Site) -> None:
    first = site.start_worker("W1")
    site.archive.hold = site.archive.breaks_off = True
    with site.start("trial", STUDIES[:1]) as watching:
        wait_for(lambda: len(list((site.root / "trial").rglob("*.dcm"))) == 1, "the first image", 60)
        first.kill()
        (left,) = (site.root / "trial").rglob("*.dcm")
        size = left.stat().st_size
        # As after a power cut of the worker's computer: the header is there, and the end is not.
        os.truncate(left, size - 100)
        site.start_worker("W2")
        site.archive.hold = False
        assert watching.wait() == 0, watching.output
    assert left.stat().st_size == size
    assert quarry("verify", "job:trial").code == 0


def test_a_worker_whose_receiver_has_ended_ends_and_leaves_its_studies_to_others(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DEAF, str(tmp_path / "deaf"))
    with Site(tmp_path, url, STUDIES, settings='retrieve = "move"') as site:
        first = site.start_worker("W1", prepare="tests.cluster.deaf")
        site.archive.hold = True
        with site.start("trial", STUDIES) as watching:
            wait_for(lambda: site.archive.now == 1, "a move", 60)
            (tmp_path / "deaf").touch()
            assert first.wait() == 4, first.output
            assert "the receiver has ended: this worker ends" in first.output
            site.archive.hold = False
            site.start_worker("W2")
            assert watching.wait() == 0, watching.output
        assert sorted(site.archive.moves.values()) == [1] * (len(STUDIES) - 1) + [2]


def test_a_job_that_every_worker_leaves_shows_why_it_waits(site: Site) -> None:
    peer = f"{site.archive.title}@{site.archive.host}:{site.archive.port}"
    site.start_worker("W1")
    with site.start("trial", STUDIES[:2], "--from", peer) as watching:
        waits = lambda: str(status(Path("job:trial")).get("waiting_for"))  # noqa: E731
        until(watching, "its wait", lambda: "does not know the archive" in waits())
        assert waits().startswith("a worker that can work on it: W1@")
        line = re.compile(
            r"T[\d:+-]+ waiting for a worker that can work on it: W1@.* does not know the archive"
        )
        assert line.search(watching.output), watching.output  # a line of its own, in full
        site.start_worker("W2", tables=f'[archive.{site.archive.title}]\naddress = "{peer}"')
        assert watching.wait() == 0, watching.output


def test_a_job_that_waits_for_disk_space_on_every_worker_says_so(site: Site) -> None:
    settings = site.work / "full.toml"
    settings.write_text("keep-free = 1e9\n" + (site.work / "quarry.toml").read_text())
    site.start_worker("W1")
    with site.start("trial", STUDIES[:2], "--config", settings) as watching:
        text = "waiting for free disk space"
        wait_for(lambda: f"job:trial: {text}" in quarry("cluster", "status").out, "its word", 60)
        until(watching, "its line", lambda: text in watching.output)
        assert quarry("stop", "job:trial", "--now").code == 0
        assert watching.wait() == 4, watching.output


def test_a_job_without_room_keeps_no_worker_from_another_job(site: Site) -> None:
    settings = site.work / "room.toml"
    settings.write_text("room = 1e-6\n" + (site.work / "quarry.toml").read_text())
    site.start_worker("W1")
    assert site.run("full", STUDIES[:1], "--config", settings).code == 0
    cohort = site.work / "full.csv"
    cohort.write_text("\n".join(["Accession", *accessions(STUDIES[:6])]) + "\n")
    command = ["extract", cohort, "--from", "main", "--job", "full", "--to", site.root / "full", "--update"]
    with Running(site.work / "full.txt", *command, "--config", settings) as watching:
        text = "job:full: its room of 1e-06 GB is used up (room)"
        wait_for(lambda: text in quarry("cluster", "status").out, "its word", 60)
        assert site.run("small", STUDIES[6:]).code == 0
        assert set(site.outcomes("small")) == {"complete"}
        moved = site.archive.moves.total()
        assert quarry("stop", "job:full").code == 0
        assert watching.wait() == 4, watching.output
    assert site.archive.moves.total() == moved == 1 + len(STUDIES[6:])
