"""An archive has several roads: the job takes the first by which anything comes, all by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Done, outcomes, quarry
from tests.peers.corpus import Corpus
from tests.peers.orthanc import DICOMWEB, Orthanc
from tests.peers.process import free_port

STUDIES = generate_studies(5, seed=23, images=3)
COMPLETE = ("complete", "all_listed_stored")


@pytest.fixture
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(STUDIES) as server:
        yield server


class Bench:
    """The cohort of all studies, and where it is fetched to."""

    def __init__(self, work: Path, archive: DemoArchive) -> None:
        self.out, self.port = work / "out", free_port()
        self.archive = f"{archive.title}@127.0.0.1:{archive.port}"
        self.cohort = work / "cohort.csv"
        self.cohort.write_text("\n".join(["Accession", *(study.accession for study in STUDIES)]) + "\n")

    def extract(self, *options: object) -> Done:
        receiver = f"QUARRY@127.0.0.1:{self.port}"
        flags = ("--from", self.archive, "--as", receiver, "--to", self.out)
        return quarry("extract", self.cohort, *flags, *options)

    @property
    def attempts(self) -> list[tuple[str, int | None]]:
        """The road and the status of every retrieval."""
        return attempts(self.out)


def attempts(out: Path) -> list[tuple[str, int | None]]:
    with closing(sqlite3.connect(out / ".quarry" / "ledger.db")) as raw:
        return raw.execute("select transport, status from attempts order by id").fetchall()


def test_an_archive_that_does_not_know_us_is_asked_by_get_instead(archive: DemoArchive, work: Path) -> None:
    bench = Bench(work, archive)
    done = bench.extract()
    assert done.code == 0
    assert (
        done.out.count("C-MOVE failed (A801, destination probably not registered). Using C-GET from now on")
        == 1
    )
    assert outcomes(bench.out) == [COMPLETE] * len(STUDIES)
    assert bench.attempts == [("move", 0xA801), *[("get", 0)] * len(STUDIES)]
    assert quarry("verify", bench.out).code == 0


def test_where_nothing_arrives_by_the_first_road_the_second_is_taken(
    archive: DemoArchive, work: Path
) -> None:
    bench = Bench(work, archive)
    archive.destinations["QUARRY"] = ("127.0.0.1", free_port())  # a firewall, or an old port
    done = bench.extract()
    assert done.code == 0 and "Using C-GET from now on" in done.out
    roads = [road for road, _ in bench.attempts]
    assert roads == sorted(roads, key="move get".index)
    assert set(roads) == {"move", "get"}


def test_a_road_that_is_asked_for_is_not_left(archive: DemoArchive, work: Path) -> None:
    bench = Bench(work, archive)
    done = bench.extract("--retrieve", "move")
    assert done.code == 4
    assert "(A801)" in done.err and "QUARRY@127.0.0.1" in done.err
    assert {road for road, _ in bench.attempts} == {"move"}


def test_c_get_alone_needs_no_port(archive: DemoArchive, work: Path) -> None:
    bench = Bench(work, archive)
    bench.port = archive.port  # taken, by the archive itself
    assert bench.extract("--retrieve", "get").code == 0
    assert {road for road, _ in bench.attempts} == {"get"}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("wado", 'retrieve = "wado" needs dicomweb'),
        ("carrier-pigeon", "retrieve: Input should be 'auto', 'move', 'get' or 'wado'"),
    ],
)
def test_a_road_that_there_is_not(archive: DemoArchive, work: Path, flag: str, said: str) -> None:
    done = Bench(work, archive).extract("--retrieve", flag)
    assert done.code == 2
    assert said in done.err


# -- finding by C-FIND, fetching over HTTP


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), options=DICOMWEB) as server:
        server.load(corpus.paths)
        yield server


def mixed(work: Path, orthanc: Orthanc, url: str, **settings: str) -> Path:
    lines = [f'{name} = "{value}"' for name, value in settings.items()]
    text = [
        "[archive.main]",
        f'address = "{orthanc.ae}"',
        f'dicomweb = "{url}"',
        *lines,
    ]
    (work / "quarry.toml").write_text("\n".join(text) + "\n")
    cohort = work / "cohort.csv"
    cohort.write_text("EMPI\nQ-TEN\n")
    return cohort


def test_found_by_query_and_fetched_over_http(orthanc: Orthanc, work: Path) -> None:
    cohort = mixed(work, orthanc, orthanc.base, retrieve="wado")
    done = quarry("extract", cohort, "--from", "main", "--to", "out", "--whole-patients")
    assert done.code == 0
    assert {road for road, _ in attempts(work / "out")} == {"wado"}


def test_a_web_service_that_is_away_is_gone_round(orthanc: Orthanc, work: Path) -> None:
    cohort = mixed(work, orthanc, f"http://127.0.0.1:{free_port()}/dicom-web")
    done = quarry(
        *("extract", cohort, "--from", "main", "--to", "out", "--whole-patients"),
        *("--as", f"QUARRY@127.0.0.1:{free_port()}"),
    )
    assert done.code == 0
    assert "WADO-RS failed" in done.out
    roads = {road for road, _ in attempts(work / "out")}
    assert roads == {"wado", "move", "get"}, "Orthanc does not know us as a destination either"
