"""The on-complete command of a job of workers: the job has its name, a worker's quarry.toml the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.site import STUDIES, Site
from tests.e2e.command import quarry, status, studies, until
from tests.e2e.job_runs import script
from tests.peers.process import wait_for

WAITS = "while [ -e {hold} ]; do sleep 0.05; done\n"


def write_command(site: Site, *, waits: bool = False) -> tuple[str, Path, Path]:
    """Return the table of a command that notes which worker runs it for which study, its notes, its hold."""
    notes, hold = site.work / "notes", site.work / "hold"
    body = (WAITS.format(hold=hold) if waits else "") + f'echo "$PWD $QUARRY_STUDY_UID" >> {notes}\n'
    return f'[commands]\nship = "{script(site.work / "ship.sh", body)}"', notes, hold


def read_notes(notes: Path) -> list[tuple[str, str]]:
    """Return the worker and the study of each run."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(Path(folder).name, study) for folder, study in (line.split() for line in lines)]


def test_workers_that_define_the_command_run_it_once_for_each_study(site: Site) -> None:
    table, notes, _ = write_command(site)
    site.start_worker("W1", tables=table)
    site.start_worker("W2")
    done = site.run("trial", STUDIES, "--on-complete", "command:ship")
    assert done.code == 0, done.out + done.err
    assert sorted(study for _, study in read_notes(notes)) == sorted(one.study_uid for one in STUDIES)
    assert {worker for worker, _ in read_notes(notes)} == {"W1"}
    assert {row["on_complete"] for row in studies(site.root / "trial")} == {"done"}


@pytest.mark.cluster
def test_without_such_a_worker_the_studies_wait_and_both_say_so(site: Site) -> None:
    table, notes, _ = write_command(site)
    site.start_worker("W1")
    with site.start("trial", STUDIES[:2], "--on-complete", "command:ship") as watching:
        waits = "a worker that has the command ship in its quarry.toml"
        until(watching, "its wait", lambda: status(Path("job:trial")).get("waiting_for") == waits)
        assert "command:ship is not in this worker's quarry.toml" in site.worker_states()
        site.start_worker("W2", tables=table)
        assert watching.wait() == 0, watching.output
    assert {worker for worker, _ in read_notes(notes)} == {"W2"}


@pytest.mark.cluster
def test_the_command_of_a_worker_that_is_killed_runs_on_another_one(site: Site) -> None:
    table, notes, hold = write_command(site, waits=True)
    first = site.start_worker("W1", tables=table)
    hold.touch()
    with site.start("trial", STUDIES[:2], "--on-complete", "command:ship") as watching:
        wait_for(lambda: status(Path("job:trial")).get("studies_complete") == 2, "the studies", 60)
        first.kill()
        site.start_worker("W2", tables=table)
        hold.unlink()
        assert watching.wait() == 0, watching.output
    assert {study for worker, study in read_notes(notes) if worker == "W2"} == {
        one.study_uid for one in STUDIES[:2]
    }


@pytest.mark.cluster
def test_a_stop_cancels_the_command_and_the_next_run_repeats_it(site: Site) -> None:
    table, notes, hold = write_command(site, waits=True)
    site.start_worker("W1", tables=table)
    hold.touch()
    with site.start("trial", STUDIES[:2], "--on-complete", "command:ship") as watching:
        wait_for(lambda: status(Path("job:trial")).get("studies_complete") == 2, "the studies", 60)
        assert quarry("stop", "job:trial", "--now").code == 0
        assert watching.wait() == 4, watching.output
    hold.unlink()
    assert quarry("resume", "job:trial").code == 0
    assert sorted(study for _, study in read_notes(notes)) == sorted(one.study_uid for one in STUDIES[:2])
