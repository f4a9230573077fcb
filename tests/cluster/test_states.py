"""Workers and commands that are killed at each place where a job's state changes (make test-cluster)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.cluster.stops import PLACE, REACHED
from tests.cluster.test_hosts import count
from tests.e2e.command import quarry
from tests.namespaces import Network
from tests.peers.process import wait_for
from tests.scripted.faults import MoveStatus

pytestmark = pytest.mark.cluster

STUDIES = generate_studies(6, seed=39, images=2)

_PACKAGE = "dicom_quarry"
_STOPS = "tests.cluster.stops"

#: What a worker does when it is killed: the place, and how many moves that costs.
STATES = {
    "opens a job": ("before cluster.job_run:make_job_context", 0),
    "fills the window": ("after cluster.window:_share_queue", 0),
    "has claimed rows": ("after ledger.claims:Claims.take_requests", 0),
    "records the studies of a row": ("before ledger.ledger:Ledger.resolve_request", 0),
    "has claimed a study": ("after ledger.claims:Claims.take_tasks", 0),
    "records the folders of a study": ("before ledger.ledger:Ledger.add_folders", 0),
    "gives a file its name": ("before store.file_placement:FilePlacer._link", 1),
    "has given a file its name": ("after store.file_placement:FilePlacer._link", 1),
    "gives its place back": ("before cluster.lease_state:LeaseState._give_back", 1),
    "makes the files durable": ("before store.file_sync:FileSync.sync", 1),
    "has made the files durable": ("after store.file_sync:FileSync.sync", 1),
    "has recorded the outcome": ("after cluster.job_run:work_on_study", 0),
}


@pytest.fixture
def site(tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    with Site(tmp_path, url, STUDIES, network=network, limits="parallel = 2\n", settle=0.2) as site:
        yield site


@contextmanager
def stopping(site: Site, place: str) -> Iterator[Path]:
    """Have the command that starts meanwhile stop at a place; yield the file that is made there."""
    when, _, name = place.partition(" ")
    reached = site.work / "reached"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PLACE, f"{when} {_PACKAGE}.{name}")
        patch.setenv(REACHED, str(reached))
        yield reached


def check(site: Site, *, cut: int) -> None:
    """Each study ended once, with all its files; moves that were cut were repeated, and no others."""
    assert site.outcomes("trial") == ["complete"] * len(STUDIES)
    assert len(site.files("trial")) == sum(len(list(study.instances())) for study in STUDIES)
    assert quarry("verify", "job:trial").code == 0
    assert count(site.url, "job_1.audit WHERE event = 'study'") == len(STUDIES)
    assert count(site.url, "job_1.claims") == 0
    assert site.archive.moves.total() == len(STUDIES) + cut


@pytest.mark.parametrize("state", STATES)
def test_a_worker_that_is_killed_while_it(site: Site, state: str) -> None:
    place, cut = STATES[state]
    with stopping(site, place) as reached:
        first = site.start_worker("W1", prepare=_STOPS)
    with site.start("trial", STUDIES) as watching:
        wait_for(reached.exists, state, 60)
        first.kill()
        site.start_worker("W2")
        assert watching.wait() == 0, watching.output
    check(site, cut=cut)


def test_a_worker_that_is_killed_while_it_postpones_a_study(site: Site) -> None:
    site.archive.faults.append(MoveStatus(0xA700, times=1))
    with stopping(site, "before ledger.ledger:Ledger.postpone_task") as reached:
        first = site.start_worker("W1", prepare=_STOPS)
    with site.start("trial", STUDIES) as watching:
        wait_for(reached.exists, "a postponement", 60)
        first.kill()
        site.start_worker("W2")
        assert watching.wait() == 0, watching.output
    check(site, cut=1)


def test_a_command_that_watches_is_killed_and_the_job_ends_without_it(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        watching.kill()
        site.archive.hold = False
        wait_for(lambda: not count(site.url, "quarry.jobs WHERE with_workers"), "the end of the job", 60)
    assert not (site.root / "trial" / "report.csv").exists()
    assert site.run("trial", STUDIES).code == 0
    check(site, cut=0)


def test_a_command_that_is_killed_while_it_writes_the_reports(site: Site) -> None:
    site.start_worker("W1")
    with (
        stopping(site, "after api.reports:write_proof") as reached,
        site.start("trial", STUDIES, prepare=_STOPS) as watching,
    ):
        wait_for(reached.exists, "the reports", 60)
        watching.kill()
    assert site.run("trial", STUDIES).code == 0
    check(site, cut=0)
