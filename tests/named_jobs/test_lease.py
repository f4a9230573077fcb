"""One process runs a job: it is seen, stopped and refused from elsewhere, and followed when it is killed."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.cluster import lease as leases
from dicom_quarry.jobs.cluster.locks import lock_key
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.place import Holder
from tests.e2e.command import Running, outcomes, quarry, until
from tests.named_jobs.named_job import STUDIES, NamedJob
from tests.peers.process import wait_for
from tests.postgres_server import PostgresServer


def facts_of(job: NamedJob) -> dict[str, Any]:
    done = quarry("status", job.label, "--json")
    return json.loads(done.out) if done.out else {}


def progress_of(place: ClusterPlace, name: str) -> object:
    progress = place.read_progress()
    return progress.get(name) if isinstance(progress, dict) else None


def until_held(job: NamedJob, running: Running) -> None:
    until(running, "the second study", lambda: job.hold.reached)
    until(running, "its progress", lambda: progress_of(job.place, "active_studies"))


def test_a_killed_process_is_seen_and_followed(job: NamedJob) -> None:
    with job.start() as running:
        until_held(job, running)
        facts = facts_of(job)
        assert (facts["process"], facts["host"], facts["killed"]) == (running.pid, None, False)
        assert f"running (process {running.pid})" in quarry("status", job.label).out
        second = job.run()
        assert second.code == 3
        assert f"another quarry (process {running.pid}) is already working on {job.label}" in second.err
        running.kill()
    place = job.place
    wait_for(lambda: place.holder() is None, "the end of its connection", 60)
    facts = facts_of(job)
    assert facts["killed"] and facts["resume"] == f"quarry resume {job.label}"
    job.hold.released = True
    assert quarry("resume", job.label).code == 1
    assert [code for code, _ in outcomes(job.out)] == ["complete"] * 4 + ["not_found"]
    assert not job.status().was_killed
    studies = {record["study_uid"] for record in job.place.read_audit() if record["event"] == "study"}
    assert studies == {one.study_uid for one in STUDIES}


def test_a_request_to_stop_is_a_row(job: NamedJob) -> None:
    with job.start() as running:
        until_held(job, running)
        place = job.place
        holder = place.find_stoppable()
        assert holder == Holder(running.pid)
        place.request_stop(holder, cancel=False)
        until(running, "that it stops", lambda: progress_of(place, "stopping"))
        done = quarry("stop", job.label, "--now")
        assert done.code == 0 and f"{job.label}: stopped. To continue: quarry resume {job.label}" in done.out
        assert running.wait() == 4
    assert outcomes(job.out).count(("complete", "all_listed_stored")) == 1
    assert job.status().holder is None and not job.status().was_killed


def lease_of(job: NamedJob, stops: list[str] | None = None) -> leases.JobLease:
    row = job.cluster.find(job.name) or job.cluster.add(job.name, job.out)
    return leases.JobLease(job.cluster, row, lambda: (stops if stops is not None else []).append("stop"))


def write_row(job: NamedJob, **values: object) -> None:
    with job.cluster.connected() as connection:
        for name, value in values.items():
            connection.execute(f"UPDATE quarry.jobs SET {name} = {value!r} WHERE name = %s", (job.name,))


def test_a_process_that_lost_its_connection_keeps_its_job_for_a_while(job: NamedJob) -> None:
    lease = lease_of(job)
    write_row(job, holder_token="theirs", holder_host="elsewhere", holder_process=7, heartbeat="now")
    with pytest.raises(StartError, match=r"process 7 on elsewhere works on .*It may come back"):
        lease.acquire()
    write_row(job, heartbeat="2026-01-01")
    lease = lease_of(job)
    lease.acquire()
    lease.release()
    write_row(job, holder_token="theirs", holder_host=socket.gethostname(), holder_process=2**30)
    write_row(job, heartbeat="now")
    lease = lease_of(job)
    lease.acquire()  # a process of this computer that has ended will not come back
    lease.release()


def test_a_lease_that_was_lost_cancels(job: NamedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_INTERVAL", 0.02)
    stops: list[str] = []
    lease = lease_of(job, stops)
    lease.acquire()
    lease.publish(json.dumps({"process": os.getpid()}))
    write_row(job, holder_token="theirs")
    wait_for(lambda: stops == ["stop", "stop"], "that the work is cancelled", 60)
    lease.release()
    with job.cluster.connected() as connection:
        found = connection.execute("SELECT holder_token FROM quarry.jobs WHERE name = %s", (job.name,))
        assert found.fetchone() == ("theirs",), "the other's lease is not given back"


def test_a_lost_connection_is_made_again(job: NamedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_INTERVAL", 0.02)
    lease = lease_of(job)
    lease.acquire()
    row = job.cluster.find(job.name)
    assert row is not None
    with job.cluster.connected() as connection:
        killed = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
            " AND classid = %s",
            (row.number, lock_key("job")),
        ).fetchall()
        assert killed == [(True,)]
        wait_for(lambda: not leases.read_lease(connection, row.number).is_locked, "the end of it", 60)
        wait_for(lambda: leases.read_lease(connection, row.number).is_locked, "another connection", 60)
        assert leases.read_lease(connection, row.number).holder == Holder(os.getpid())
    lease.release()


def test_a_server_that_is_started_again_costs_nothing(job: NamedJob, postgres: PostgresServer) -> None:
    with job.start() as running:
        until_held(job, running)
        postgres.kill()
        job.hold.released = True
        postgres.start()
        assert running.wait() == 1, running.output
    assert [code for code, _ in outcomes(job.out)] == ["complete"] * 4 + ["not_found"]
    assert job.status().holder is None and not job.status().was_killed
