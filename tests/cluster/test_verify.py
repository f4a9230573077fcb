"""``quarry verify job:NAME``: the workers compare the files, wherever the command is typed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dicom_quarry.jobs.cluster import file_check
from dicom_quarry.jobs.cluster.file_check import FileCheck
from dicom_quarry.jobs.cluster.opening import open_named
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.ledger.stored_files import FileTotals
from dicom_quarry.system.shutdown import Stopped
from dicom_quarry.verification.worker_part import compare_next_part
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import Running, quarry, status, until
from tests.peers.process import wait_for

JOB = Path("job:trial")
ALL = {"quick": False, "sample_share": None}


@pytest.fixture
def folder(site: Site) -> Path:
    """The folder of a job that a worker has fetched; it has left."""
    worker = site.start_worker("W1")
    assert site.run("trial", STUDIES).code == 0
    worker.terminate()
    assert worker.wait() == 0, worker.output
    return site.root / "trial"


def images(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def codes(folder: Path) -> dict[str, str]:
    with (folder / "damaged.csv").open(newline="") as file:
        return {row["path"]: row["code"] for row in csv.DictReader(file)}


def damage(folder: Path) -> dict[str, str]:
    """Damage some files, and add one; return what is to be found."""
    changed, shortened, lost, *_ = images(folder)
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    shortened.write_bytes(shortened.read_bytes()[:-2])
    lost.unlink()
    stray = lost.parent / "stray.dcm"
    stray.write_bytes(b"not Quarry's")
    found = {changed: "content", shortened: "size", lost: "missing", stray: "stray"}
    return {str(path.relative_to(folder)): code for path, code in found.items()}


def place_of_job() -> ClusterPlace:
    place = open_named("trial")
    assert isinstance(place, ClusterPlace)
    return place


def check_of_job() -> FileCheck:
    place = place_of_job()
    return FileCheck(place.cluster, place.job)


def is_in_work() -> bool:
    state = check_of_job().read()
    return state is not None and state.parts > 0


@contextmanager
def held(site: Site) -> Iterator[None]:
    """Have the workers begin, and hold the first part with a finding at its end."""
    check_of_job().begin(ALL, searches=True)
    with psycopg.connect(site.url) as connection:
        connection.execute("LOCK TABLE job_1.file_check_findings IN EXCLUSIVE MODE")
        yield


def verification() -> dict[str, Any]:
    found = status(JOB)["verification"]
    return found or {}


def test_the_workers_compare_the_files(site: Site, folder: Path) -> None:
    site.start_worker("W2")
    assert verification() == {}
    done = quarry("verify", JOB)
    assert done.code == 0, done.out + done.err
    assert f"{len(images(folder))} files compared by SHA-256: 0 damaged or missing" in done.out
    assert "The workers of the database compare the files." in done.out
    assert "quarry verify" not in quarry("status", JOB).out
    assert verification()["files"] == len(images(folder))


def test_they_find_what_this_computer_would_find(site: Site, folder: Path) -> None:
    expected = damage(folder)
    site.start_worker("W2")
    done = quarry("verify", JOB)
    assert done.code == 1, done.out + done.err
    assert "3 damaged or missing" in done.out and "1 file was not stored by Quarry" in done.out
    assert codes(folder) == expected
    by_workers = (folder / "damaged.csv").read_text()
    assert "3 files are damaged or missing (found by quarry verify" in quarry("status", JOB).out
    here = quarry("verify", JOB, "--threads", 1)
    assert here.code == 1 and done.out.endswith(here.out)
    assert (folder / "damaged.csv").read_text() == by_workers


def test_a_comparison_of_sizes_and_a_sample(site: Site, folder: Path) -> None:
    expected = damage(folder)
    site.start_worker("W2")
    done = quarry("verify", JOB, "--quick")
    assert done.code == 1 and "compared by size: 2 damaged or missing" in done.out, done.out + done.err
    assert sorted(codes(folder).values()) == ["missing", "size", "stray"]
    done = quarry("verify", JOB, "--sample", "100%", "--seed", "a")
    assert done.code == 1 and "3 damaged or missing" in done.out, done.out + done.err
    assert codes(folder) == {path: code for path, code in expected.items() if code != "stray"}
    assert "Random sample of 100 %" in done.out and "--seed a" in done.out


def test_ctrl_c_lets_go_and_the_result_is_shown_later(site: Site, folder: Path, tmp_path: Path) -> None:
    expected = damage(folder)
    with held(site):
        site.start_worker("W2")
        with Running(tmp_path / "verify.txt", "verify", JOB) as watching:
            until(watching, "a part in work", is_in_work)
            until(watching, "its beginning", lambda: "compare the files" in watching.output)
            watching.interrupt()
            assert watching.wait() == 4, watching.output
        assert "the workers go on" in watching.output and "quarry stop job:trial" in watching.output
        assert "the workers compare its files" in quarry("status", JOB).out
        assert ": the workers compare its files: 0 files so far, 0" in quarry("cluster", "status").out
        refused = quarry("verify", JOB, "--quick")
        assert refused.code == 3 and "in another way just now" in refused.err, refused.out + refused.err
    wait_for(lambda: bool(verification().get("ended_at")), "the end of the comparison", 60)
    # Without anybody who watches: the list, and what the record says.
    wait_for((folder / "damaged.csv").exists, "the list", 60)
    assert codes(folder) == expected
    wait_for(lambda: "found by quarry verify" in quarry("status", JOB).out, "the damage in the record", 60)
    assert "To see the result: quarry verify job:trial" in quarry("status", JOB).out
    done = quarry("verify", JOB)
    assert done.code == 1 and "The workers have compared the files, until" in done.out, done.out
    assert "3 damaged or missing" in done.out
    assert "To see the result" not in quarry("status", JOB).out


@pytest.mark.cluster
def test_a_worker_that_is_killed_leaves_its_part_to_another_one(site: Site, folder: Path) -> None:
    expected = damage(folder)
    with held(site):
        first = site.start_worker("W2")
        wait_for(is_in_work, "a part in work", 60)
        first.kill()
    site.start_worker("W3")
    done = quarry("verify", JOB)
    assert done.code == 1 and "3 damaged or missing" in done.out, done.out + done.err
    assert verification()["files"] == len(
        images(folder)
    )  # each once; the added one stands for the missing one
    assert codes(folder) == expected


@pytest.mark.cluster
def test_a_stop_ends_it_and_the_command_goes_on_with_it(site: Site, folder: Path, tmp_path: Path) -> None:
    damage(folder)
    with held(site), Running(tmp_path / "verify.txt", "verify", JOB) as watching:
        until(watching, "its wait", lambda: "a worker: none gives signs of life" in watching.output)
        done = quarry("stop", JOB)
        assert done.code == 0 and "ending the comparison of its files" in done.out, done.out + done.err
        assert "To continue: quarry verify job:trial" in done.out
        assert watching.wait() == 4, watching.output
    assert "the comparison of its files was stopped after 0 files" in quarry("status", JOB).out
    assert quarry("stop", JOB).out.strip() == "Nothing to stop: no job is running"
    site.start_worker("W2")
    done = quarry("verify", JOB)
    assert done.code == 1 and "Resuming after 0 files" in done.out, done.out + done.err


@pytest.mark.cluster
def test_the_folder_need_not_be_here_but_with_the_workers(
    site: Site, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    expected = damage(folder)
    pointer = folder / ".quarry" / "job.json"
    pointer.rename(tmp_path / "job.json")  # as if the folder was not there
    done = quarry("verify", JOB)
    assert done.code == 2 and "the images of job:trial are in" in done.err, done.out + done.err
    site.start_worker("W2")
    with Running(tmp_path / "verify.txt", "verify", JOB) as watching:
        until(watching, "its wait", lambda: "work on it: W2@" in watching.output)
        (tmp_path / "job.json").rename(pointer)
        # The worker tries again after a minute; another one, at once.
        site.start_worker("W3")
        assert watching.wait() == 1, watching.output
    assert codes(folder) == expected


@pytest.mark.cluster
def test_a_job_is_not_removed_while_its_files_are_compared(site: Site, folder: Path) -> None:
    check_of_job().begin(ALL, searches=True)
    done = quarry("cluster", "remove", JOB, "--yes")
    assert done.code == 3 and "the workers compare its files" in done.err, done.out + done.err
    assert quarry("stop", JOB).code == 0
    assert quarry("cluster", "remove", JOB, "--yes").code == 0


def do_nothing(*_: object) -> None:
    """Be the end of a comparison."""


def compare(worker: str = "a", should_stop: Callable[[], bool] = lambda: False) -> bool:
    return compare_next_part(place_of_job(), worker, should_stop, do_nothing)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_check, "PART_FILES", 2)


@pytest.mark.usefixtures("small_parts")
def test_a_part_is_given_back_and_begun_again(site: Site, folder: Path) -> None:
    check = check_of_job()
    check.begin(ALL, searches=True)
    with pytest.raises(Stopped):
        compare(should_stop=lambda: True)
    assert not is_in_work()
    numbers = 0
    while compare():
        numbers += 1
    state = check.read()
    assert state is not None and state.ended is not None and not state.is_active
    assert (state.done.files, state.damaged, state.unrecorded) == (len(images(folder)), 0, 0)
    assert numbers == len(STUDIES) + 1, "of two files each, and the search"


@pytest.mark.usefixtures("small_parts")
def test_what_a_worker_says_whose_part_was_given_away_is_not_recorded(site: Site, folder: Path) -> None:
    check = check_of_job()
    check.begin(ALL, searches=False)
    part = check.take("frozen")
    assert part is not None
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute("DELETE FROM job_1.claims WHERE worker = 'frozen'")
    while compare():
        pass
    assert not check.report(part, FileTotals(9, 9))
    assert not check.end(part, FileTotals(9, 9), [])
    state = check.read()
    assert state is not None and state.done.files == len(images(folder))


@pytest.mark.usefixtures("small_parts")
def test_a_worker_takes_up_a_part_whose_claim_it_does_not_know_of(site: Site, folder: Path) -> None:
    """As after a commit in doubt."""
    check = check_of_job()
    check.begin(ALL, searches=False)
    lost = check.take("a")
    again = check.take("a")
    assert lost is not None and again is not None and again.after == lost.after
    other = check.take("b")
    assert other is not None and other.after == again.last


def test_a_stopped_comparison_is_not_reported_on(site: Site, folder: Path) -> None:
    check = check_of_job()
    check.begin(ALL, searches=True)
    part = check.take("a")
    assert part is not None and check.report(part, FileTotals(3, 30))
    state = check.read()
    assert state is not None and state.done == FileTotals(3, 30)
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute("UPDATE quarry.jobs SET verifying = false")
    assert not check.report(part, FileTotals(4, 40))
