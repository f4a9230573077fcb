"""A job of 10,000 studies of two archives beside one of 10, on three hosts (make test-cluster)."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import CountingArchive, Site
from tests.cluster.test_hosts import check_same, count, run_embedded
from tests.e2e.command import Running, quarry
from tests.namespaces import Network
from tests.peers.process import wait_for
from tests.scripted.faults import MoveStatus
from tests.scripted.store_faults import Of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

#: Half of the large one is in each archive; the small one is in the first.
LARGE = generate_studies(10_000, seed=36, images=1)
SMALL = generate_studies(10, seed=37, images=1)
HALF = len(LARGE) // 2
CEILINGS = {"main": 2, "other": 6}
TITLES = ("W1", "W2", "W3")

#: A worker's memory is measured when so many studies have ended, and at the end.
_MEASURED_AT = 1000
_MAX_GROWTH = 16 << 20

_BOTH = ("--from", "main,other")


def write_limits(site: Site, archives: dict[str, CountingArchive]) -> None:
    """Write the site.toml of all hosts."""
    lines = [
        f'[archive."{one.title}@{one.host}:{one.port}"]\nparallel = {CEILINGS[name]}\n'
        for name, one in archives.items()
    ]
    (site.work / "etc" / "quarry" / "site.toml").write_text("".join(lines))


def wait_for_end(site: Site, large: Running, workers: list[Running]) -> dict[int, list[int]]:
    """Wait for the end of the large job; return the peaks of the workers by the number of ended studies."""
    ended = "job_1.tasks WHERE state = 'concluded'"
    wait_for(lambda: large.ended or count(site.url, ended) >= _MEASURED_AT, "the first studies", 1200)
    peaks = {_MEASURED_AT: [one.peak() for one in workers]}
    assert large.wait(3000) == 0, large.output
    peaks[len(LARGE)] = [one.peak() for one in workers]
    return peaks


def test_ten_thousand_studies_beside_ten(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = CountingArchive(LARGE[HALF:], network.archive, title="OTHER")
    table = f'retrieve = "move"\n[archive.other]\naddress = "OTHER@{network.archive}:{{port}}"\nsettle = 0.3'
    with other:
        settings = f'{table.format(port=other.port)}\nretrieve = "move"'
        with Site(tmp_path, url, LARGE[:HALF] + SMALL, settings=settings, network=network) as site:
            archives = {"main": site.archive, "other": other}
            other.destinations = site.archive.destinations
            write_limits(site, archives)
            postponed = LARGE[3]
            site.archive.faults.append(Of(postponed, MoveStatus(0xA701, times=1)))
            workers = [site.start_worker(title, "--parallel", 3) for title in TITLES]
            with site.start("large", LARGE, *_BOTH) as large:
                moved = lambda: site.archive.moves.total() + other.moves.total()  # noqa: E731
                wait_for(lambda: moved() > 20, "moves of the large one", 120)
                done = site.run("small", SMALL, *_BOTH)
                assert done.code == 0, done.out
                assert moved() < len(LARGE) / 2, "the small one ends early"
                peaks = wait_for_end(site, large, workers)
            assert {name: one.most <= CEILINGS[name] for name, one in archives.items()} == {
                "main": True,
                "other": True,
            }
            assert (site.archive.most, other.most) == (2, 6)
            moves = site.archive.moves + other.moves
            assert moves.pop(postponed.study_uid) == 2
            assert set(moves.values()) == {1}
            assert len(moves) == len(LARGE) + len(SMALL) - 1
            print("peak memory of the workers", peaks)
            for early, late in zip(*peaks.values(), strict=True):
                assert late - early < _MAX_GROWTH, peaks
            site.archive.faults.append(Of(postponed, MoveStatus(0xA701, times=1)))
            for name in ("large", "small"):
                check_same(site.root / name, run_embedded(site, name, *_BOTH, "--parallel", 3, patience=1800))
            assert quarry("verify", "job:small").code == 0
