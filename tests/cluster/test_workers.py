"""Whole jobs on several workers, each a process of its own: as on one host, whatever happens to a worker."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from dicom_quarry.version import __version__
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import Running, quarry, until
from tests.peers.process import free_port, wait_for
from tests.reporting.test_metrics import parse
from tests.scripted.faults import Reject

_CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'quarry' AND pid <> pg_backend_pid()
"""


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


def test_an_archive_that_is_busy_when_a_worker_starts_is_probed_until_it_answers(site: Site) -> None:
    site.archive.faults.append(Reject(times=2))
    site.start_worker("W1")
    assert site.run("trial", STUDIES[:2]).code == 0
    assert site.outcomes("trial") == ["complete"] * 2


def test_letting_go_leaves_the_job_to_the_workers_and_a_stop_ends_it(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        watching.interrupt()
        assert watching.wait() == 4, watching.output
    assert "let go of job:trial: the workers go on" in watching.output
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


def test_a_stop_that_takes_too_long_can_be_made_a_cancel(site: Site) -> None:
    site.start_worker("W1")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 1, "a move", 60)
        with Running(site.work / "stop.txt", "stop", "job:trial") as stopping:
            until(stopping, "the request", lambda: "finishing the studies" in stopping.output)
            assert watching.wait() == 4, watching.output
            assert "to continue: quarry resume job:trial" in watching.output
            assert site.archive.now == 1, "a stop alone cancels nothing"
            assert quarry("stop", "job:trial", "--now").code == 0
            assert stopping.wait() == 0, stopping.output
    assert site.archive.now == 0, "the archive was told to cancel"


def test_a_second_worker_of_the_same_title_is_refused_and_so_is_one_without_a_database(site: Site) -> None:
    site.start_worker("W1")
    settings = (site.work / "W1" / "quarry.toml").read_text()
    other = site.work / "other"
    other.mkdir()
    (other / "quarry.toml").write_text(settings)
    command = ["worker", "--as", f"W1@127.0.0.1:{free_port()}", "--root", site.root]
    refused = quarry(*command, cwd=other)
    assert refused.code == 3
    assert "a worker W1@" in refused.err
    assert "runs already" in refused.err
    (other / "quarry.toml").write_text(settings.split("[cluster]")[0])
    lost = quarry(*command, cwd=other)
    assert lost.code == 2
    assert "does not name the database of the jobs" in lost.err


def metrics_of(file: Path) -> dict[tuple[str, ...], float]:
    """Read a worker's file: names without their beginning, with the values of their labels."""
    found = parse(file.read_text())
    assert {labels[0][0] for _, labels in found} == {"worker"}
    return {
        (name.removeprefix("quarry_worker_"), *(value for _, value in labels[1:])): number
        for (name, labels), number in found.items()
    }


def test_the_status_of_the_database_names_workers_jobs_and_what_is_in_work(site: Site) -> None:
    folder, settings = site.work / "metrics", site.work / "worker.toml"
    folder.mkdir()
    settings.write_text(f'metrics = "{folder}"\n' + (site.work / "quarry.toml").read_text())
    worker = site.start_worker("W1", "--parallel", 2, "--config", settings)
    wait_for(lambda: any(folder.glob("*.prom")), "its metrics", 60)
    [file] = folder.glob("quarry_worker_W1_*.prom")
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 2, "two moves", 60)
        shown = quarry("cluster", "status").out
        assert "1 worker in postgresql://" in shown
        with psycopg.connect(site.url) as connection:
            (taken,) = connection.execute(_CONNECTIONS).fetchone() or (None,)
        assert taken in range(12, 12 + 6 + 6 + 1), "docs/many-hosts.md, What PostgreSQL must be"
        assert "2 studies in work" in shown
        assert f"main, {site.archive.title}@{site.archive.host}:{site.archive.port}: answers" in shown
        assert "job:trial of " in shown
        assert "weight 1, 100% of the work" in shown
        facts = json.loads(quarry("cluster", "status", "--json").out)
        assert [(one["name"], one["in_work"], one["counts"]["studies"]) for one in facts["jobs"]] == [
            ("trial", 2, len(STUDIES))
        ]
        assert [(one["in_work"], one["version"]) for one in facts["workers"]] == [(2, __version__)]
        assert not [one.accession for one in STUDIES if one.accession in shown + json.dumps(facts)]
        busy = ("tokens", "studies:main")
        wait_for(lambda: metrics_of(file)[busy] == 2, "its tokens", 60)
        assert metrics_of(file)["tokens_limit", "studies:main"] == 2
        site.archive.hold = False
        assert watching.wait() == 0, watching.output
    assert "0 jobs with the workers" in quarry("cluster", "status").out
    wait_for(lambda: metrics_of(file)["studies_total", "main"] == len(STUDIES), "the last study", 60)
    found = metrics_of(file)
    assert found["stored_instances_total",] == sum(len(list(one.instances())) for one in STUDIES)
    assert found["stored_bytes_total",] == sum(site.files("trial").values())
    assert found["errors_total", "archive"] == found["errors_total", "job"] == found[busy] == 0
    assert found["database_contact_timestamp_seconds",] > found["started_timestamp_seconds",]
    assert found["archive_available", "main"] == found["window_open", "main"] == 1
    worker.terminate()
    assert worker.wait() == 0, worker.output
    assert not file.exists(), "a worker that has ended has no numbers"


def test_a_job_without_a_folder_gets_one_below_the_root_and_keeps_it(site: Site) -> None:
    worker = site.start_worker("W1")
    words = [one for one in site.extract("trial", STUDIES[:1]) if one not in ("--to", site.root / "trial")]
    done = quarry(*words)
    assert done.code == 0, done.out + done.err
    assert len(site.files("trial")) == len(list(STUDIES[0].instances()))
    assert quarry("extract", "--job", "trial", *words[1:4]).code == 0
    worker.terminate()
    assert worker.wait() == 0
    assert quarry(*words).code == 0, "the folder is in the list of jobs"
    other = [one if one != "trial" else "other" for one in words]
    refused = quarry(*other)
    assert refused.code == 2 and "which output folder?" in refused.err, refused.out + refused.err


def test_with_workers_of_several_roots_the_folder_is_to_be_named(site: Site) -> None:
    site.start_worker("W1")
    (site.work / "second").mkdir()
    site.start_worker("W2", "--root", site.work / "second")
    words = [one for one in site.extract("trial", STUDIES[:1]) if one not in ("--to", site.root / "trial")]
    refused = quarry(*words)
    assert refused.code == 2, refused.out + refused.err
    assert f"below a root of the workers: {site.root}, {site.work / 'second'}" in refused.err


def test_a_job_whose_folder_no_worker_has_is_done_by_its_command(site: Site) -> None:
    site.start_worker("W1")
    port = free_port()
    site.archive.destinations["DESK"] = ("127.0.0.1", port)
    words = site.extract("trial", STUDIES[:2], "--as", f"DESK@127.0.0.1:{port}")
    words[words.index("--to") + 1] = site.work / "elsewhere"
    done = quarry(*words)
    assert done.code == 0, done.out + done.err
    assert f"elsewhere below its root ({site.root}): this command does the work itself" in done.out
    assert (site.work / "elsewhere" / "report.csv").exists()
