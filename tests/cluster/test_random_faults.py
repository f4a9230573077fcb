"""Faults in random order on workers and database: each row ends as on one host (make test-cluster)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import psycopg
import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.site import Site
from tests.e2e.command import Running, quarry
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.cluster

STUDIES = generate_studies(90, seed=22, images=2)
#: Two jobs, which share ten studies.
JOBS = {"large": STUDIES[:60], "small": STUDIES[50:]}
TITLES = ("W1", "W2", "W3")
FAULTS = 30


class Faults:
    """What befalls workers and database, in the order that ``chance`` decides."""

    def __init__(self, site: Site, server: PostgresServer, chance: random.Random) -> None:
        self._site = site
        self._server = server
        self._chance = chance
        self._workers: dict[str, Running] = {}
        self._frozen: set[str] = set()

    def strike(self) -> str:
        """Do the next one; return its name."""
        name = self._chance.choice(["kill", "start", "start", "freeze", "thaw", "stop", "database", "hold"])
        getattr(self, name)()
        return name

    def kill(self) -> None:
        for title in self._choose():
            self._workers.pop(title).kill()
            self._frozen.discard(title)

    def start(self) -> None:
        free = [one for one in TITLES if one not in self._workers or self._workers[one].ended]
        for title in free[:1]:
            self._workers[title] = self._site.start_worker(
                title, "--parallel", self._chance.choice([1, 2, 3])
            )

    def freeze(self) -> None:
        for title in self._choose():
            self._workers[title].signal(SIGSTOP)
            self._frozen.add(title)

    def thaw(self) -> None:
        for title in self._frozen:
            self._workers[title].signal(SIGCONT)
        self._frozen.clear()

    def stop(self) -> None:
        for title in set(self._choose()) - self._frozen:
            self._workers[title].terminate()

    def database(self) -> None:
        self._server.kill()
        time.sleep(self._chance.uniform(0, 4))  # a lease is 3
        self._server.start()

    def hold(self) -> None:
        self._site.archive.hold = True
        time.sleep(self._chance.uniform(0, 2))
        self._site.archive.hold = False

    def _choose(self) -> list[str]:
        living = [title for title, worker in self._workers.items() if not worker.ended]
        return [self._chance.choice(living)] if living else []


@contextmanager
def watching(site: Site) -> Iterator[dict[str, Running]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(site.start(name, studies)) for name, studies in JOBS.items()}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_row_ends_as_on_one_host(
    tmp_path: Path, url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    with Site(tmp_path, url, STUDIES) as site:
        faults = Faults(site, server, chance)
        faults.start()
        with watching(site) as watched:
            for _ in range(FAULTS):
                print(faults.strike(), flush=True)
                time.sleep(chance.uniform(0, 1.5))
            faults.thaw()
            faults.start()
            for name, one in watched.items():
                wait_for(lambda one=one: one.ended, f"the end of {name}", 240)  # type: ignore[misc]
        for name, studies in JOBS.items():
            assert site.run(name, studies).code == 0
            assert site.outcomes(name) == ["complete"] * len(studies)
            assert len(site.files(name)) == sum(len(list(study.instances())) for study in studies)
            stored = [path for path in (site.root / name).rglob("*.dcm") if ".quarry" not in path.parts]
            assert len(stored) == len(site.files(name))
            assert quarry("verify", f"job:{name}").code == 0
        with psycopg.connect(url) as connection:
            for number in (1, 2):
                assert connection.execute(f"SELECT FROM job_{number}.claims").fetchall() == []
            # A worker that found no file left to compare rests for a second.
            tokens = "SELECT FROM quarry_engine.procrastinate_jobs"
            wait_for(lambda: not connection.execute(tokens).fetchall(), "the last tokens", 60)
