"""A database that is away for a minute in mid-job, with long and short retrievals (make test-cluster)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.cluster.test_hosts import count
from tests.e2e.command import quarry
from tests.namespaces import Network
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

#: The first two are long ones: they end after the absence.
STUDIES = generate_studies(60, seed=40, images=2)
LONG = {study.study_uid for study in STUDIES[:2]}
TITLES = ("W1", "W2")
MINUTE = 60.0


@pytest.mark.parametrize("limits", ["parallel = 4\n", ""], ids=["leases", "without limits"])
def test_a_minute_without_a_database_loses_nothing(
    tmp_path: Path,
    url: str,
    server: PostgresServer,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    limits: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES, network=network, limits=limits) as site:
        workers = [site.start_worker(title, "--parallel", 2) for title in TITLES]
        site.archive.hold = True
        site.archive.let_through |= {study.study_uid for study in STUDIES} - LONG
        with site.start("trial", STUDIES) as watching:
            wait_for(
                lambda: count(site.url, "job_1.tasks WHERE state = 'concluded'") >= 10 and is_moving(site),
                "the first studies",
                120,
            )
            server.kill()
            killed_at = time.monotonic()
            wait_for(lambda: time.monotonic() >= killed_at + MINUTE, "the end of the absence", 2 * MINUTE)
            cut = 2 - site.archive.now
            assert cut == (2 if limits else 0), "a move is cut where its place may pass on to others"
            assert not any(one.ended for one in (watching, *workers))
            site.archive.hold = False
            server.start()
            assert watching.wait(300) == 0, watching.output
        assert site.outcomes("trial") == ["complete"] * len(STUDIES)
        assert quarry("verify", "job:trial").code == 0
        assert count(site.url, "job_1.audit WHERE event = 'study'") == len(STUDIES)
        repeated = {uid for uid, moves in site.archive.moves.items() if moves > 1}
        assert repeated == (LONG if limits else set())
        assert site.archive.moves.total() == len(STUDIES) + cut
        assert site.archive.most <= 4
        for worker in workers:
            worker.terminate()
            assert worker.wait() == 0, worker.output


def is_moving(site: Site) -> bool:
    """Return True while both long ones are in work."""
    return {*site.archive.moves} >= LONG
