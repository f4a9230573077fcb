"""Workers on hosts of their own: network namespaces with an address, a name and a site policy each."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from statistics import mean

import psycopg
import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.e2e import command
from tests.e2e.command import Running, quarry
from tests.namespaces import Network
from tests.peers.process import free_port, wait_for

STUDIES = generate_studies(40, seed=31, images=2)


def run_embedded(site: Site, name: str, *options: object, patience: float = 120.0) -> Path:
    """Extract the cohort of a job without workers; return the folder."""
    port = free_port()
    site.archive.destinations["ALONE"] = (site.archive.host, port)
    out, alone = site.work / f"{name}-alone", f"ALONE@{site.archive.host}:{port}"
    words = ["extract", site.work / f"{name}.csv", "--from", "main", "--as", alone, "--to", out, *options]
    with Running(site.work / f"{name}-alone.txt", *words) as running:
        assert running.wait(patience) == 0, running.output
    return out


def count(url: str, table: str) -> int:
    """Return the number of rows of a table, 0 while it is not there."""
    with psycopg.connect(url) as connection, suppress(psycopg.errors.UndefinedTable):
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0
    return 0


def _without_times(rows: list[command.Row]) -> list[tuple[tuple[str, str], ...]]:
    return sorted(tuple({**row, "quarry_proved_at": ""}.items()) for row in rows)


def check_same(one: Path, other: Path) -> None:
    """Two folders have the same files, and the same reports but for the time of the proofs."""
    for read in (command.report, command.studies, command.manifest):
        first, second = (_without_times(read(out)) for out in (one, other))
        assert first == second
    command.check_folder(one)


def test_three_hosts_share_two_jobs_under_the_ceiling_of_the_site(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES, network=network, limits="parallel = 2\n") as site:
        for title in ("W1", "W2", "W3"):
            site.start_worker(title, "--parallel", 2)
        site.archive.hold = True
        with site.start("large", STUDIES[:30]) as large:
            wait_for(lambda: site.archive.now == 2, "moves of the large one", 60)
            with site.start("small", STUDIES[30:]) as small:
                wait_for(lambda: count(url, "job_2.tasks") == 10, "the studies of the small one", 60)
                site.archive.hold = False
                assert small.wait() == 0, small.output
                assert large.wait() == 0, large.output
        moved = [seen.uids[0] for seen in site.archive.requests("move")]
        small_one = {study.study_uid for study in STUDIES[30:]}
        turns = [turn for turn, uid in enumerate(moved) if uid in small_one]
        # The first ones had been given out when the small one came; a study may wait long for its place.
        others = [turn for turn, uid in enumerate(moved) if uid not in small_one][10:]
        assert mean(turns) < mean(others), "the small one did not wait for the large one"
        assert site.archive.most == 2
        check_same(site.root / "large", run_embedded(site, "large"))


@pytest.mark.cluster
def test_a_host_that_is_cut_off_from_the_database_alone_gives_its_moves_up_in_time(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES, network=network, limits="parallel = 1\n") as site:
        cut = site.start_worker("W1")
        site.archive.hold = True
        with site.start("trial", STUDIES[:6]) as watching:
            wait_for(lambda: site.archive.now == 1, "a move", 60)
            site.start_worker("W2")
            host = site.host_of("W1")
            assert host is not None
            with network.cut_off(host, network.database):
                wait_for(lambda: site.archive.moves.total() == 2, "the move of the other worker", 60)
                assert site.archive.now == 1, "the first move was cancelled before"
                site.archive.hold = False
                assert watching.wait() == 0, watching.output
        cut.terminate()
        assert cut.wait() == 0, cut.output
        assert site.archive.most == 1
        assert sorted(site.archive.moves.values()) == [1] * 5 + [2]
        assert quarry("verify", "job:trial").code == 0
