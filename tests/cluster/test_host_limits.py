"""The site's limits over all hosts, as the archive counts them, and a small job beside a large one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from tests.cluster.site import Site
from tests.cluster.test_hosts import check_same, run_embedded
from tests.namespaces import Network
from tests.peers.process import wait_for
from tests.scripted.faults import MoveStatus
from tests.scripted.store_faults import Of

pytestmark = pytest.mark.cluster

SMALL = generate_studies(10, seed=34, images=2)
LARGE = generate_studies(600, seed=35, images=1)
TITLES = ("W1", "W2", "W3")


@pytest.fixture
def hosts(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[DemoStudy], str], Site]:
    """A site with these studies and limits."""
    monkeypatch.chdir(tmp_path)

    def make(studies: list[DemoStudy], limits: str) -> Site:
        return Site(tmp_path, url, studies, settings='retrieve = "move"', network=network, limits=limits)

    return make


def times(site: Site, kind: str) -> list[float]:
    """Return when each request came."""
    return [seen.time for seen in site.archive.requests(kind)]


def check_rate(moments: list[float], per_second: float) -> None:
    """No span of time has more requests than its rate; one may be late, and the next one not."""
    for span in (len(moments) // 2, len(moments) - 1):
        shortest = min(late - early for early, late in zip(moments, moments[span:], strict=False))
        assert shortest >= (span - 1) / per_second, (span, shortest)


def test_the_rates_of_the_site_are_those_of_all_hosts_together(
    hosts: Callable[[list[DemoStudy], str], Site],
) -> None:
    limits = "queries-per-second = 8\nstudies-per-hour = 10800\n"
    with hosts(SMALL, limits) as site:
        for title in TITLES:
            site.start_worker(title, "--parallel", 2)
        done = site.run("trial", SMALL)
        assert done.code == 0, done.out
        check_rate(times(site, "move"), 3)
        check_rate(times(site, "find"), 8)


def test_no_host_begins_anything_outside_the_window(
    hosts: Callable[[list[DemoStudy], str], Site],
) -> None:
    # Windows end with a minute: one that is at least 20 seconds away.
    end = (datetime.now(UTC) + timedelta(seconds=80)).replace(second=0, microsecond=0)
    begin = end - timedelta(hours=2)
    limits = f'window = "{begin:%H:%M}-{end:%H:%M}"\ntime-zone = "UTC"\nstudies-per-hour = 1800\n'
    with hosts(LARGE, limits) as site:
        for title in TITLES:
            site.start_worker(title)
        with site.start("trial", LARGE) as watching:
            wait_for(lambda: site.archive.moves.total() > 2, "moves", 60)
            wait_for(lambda: datetime.now(UTC) > end + timedelta(seconds=4), "the end of the window", 120)
            assert not watching.ended
            last = max(times(site, "move") + times(site, "find")) + (time.time() - time.monotonic())
            assert last < end.timestamp() + 1
            assert site.archive.now == 0


def test_a_study_that_is_postponed_blocks_none(hosts: Callable[[list[DemoStudy], str], Site]) -> None:
    # Not the first one of its worker: while nothing has arrived yet, smaller requests follow at once.
    postponed = SMALL[6]
    with hosts(SMALL, "parallel = 1\n") as site:
        site.archive.faults.append(Of(postponed, MoveStatus(0xA701, times=1)))
        for title in TITLES:
            site.start_worker(title)
        done = site.run("trial", SMALL)
        assert done.code == 0, done.out
        assert site.archive.moves[postponed.study_uid] == 2
        others = {study.study_uid for study in SMALL if study is not postponed}
        assert site.archive.requests("move")[-1].uids[0] not in others, "it was the last one"
        site.archive.faults.append(Of(postponed, MoveStatus(0xA701, times=1)))
        check_same(site.root / "trial", run_embedded(site, "trial"))


@pytest.mark.parametrize("ceiling", [2, 6])
def test_a_small_job_beside_a_large_one_on_three_hosts(
    hosts: Callable[[list[DemoStudy], str], Site], ceiling: int
) -> None:
    with hosts(LARGE + SMALL, f"parallel = {ceiling}\n") as site:
        for title in TITLES:
            site.start_worker(title, "--parallel", 3)
        with site.start("large", LARGE) as large:
            wait_for(lambda: site.archive.moves.total() > 10, "moves of the large one", 60)
            done = site.run("small", SMALL)
            assert done.code == 0, done.out
            assert large.wait(600) == 0, large.output
        moved = [seen.uids[0] for seen in site.archive.requests("move")]
        assert max(moved.index(study.study_uid) for study in SMALL) < len(LARGE) - 100, "it ends early"
        assert site.archive.most <= ceiling
        assert set(site.archive.moves.values()) == {1}
        check_same(site.root / "large", run_embedded(site, "large"))
