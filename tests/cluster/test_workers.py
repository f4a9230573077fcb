"""Whole jobs on several workers, each a process of its own: as on one host, whatever happens to a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.e2e.command import Running, quarry
from tests.peers.process import wait_for

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


def test_the_ceiling_of_the_site_holds_over_all_workers_and_jobs_take_turns(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "site.toml"
    policy.write_text("[archive.main]\nparallel = 2\n")
    monkeypatch.setenv("QUARRY_SITE", str(policy))
    for title in ("W1", "W2"):
        site.start_worker(title, "--parallel", 3)
    site.archive.hold = True
    with site.start("large", STUDIES[:10]) as large, site.start("small", STUDIES[10:]) as small:
        wait_for(lambda: site.archive.now == 2, "two moves", 60)
        site.archive.hold = False
        assert small.wait() == 0, small.output
        assert large.wait() == 0, large.output
    assert site.archive.most == 2
    assert set(site.archive.moves.values()) == {1}
