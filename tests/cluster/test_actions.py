"""Who did what to a job: rows of the database, and lines of the audit log."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

from dicom_quarry.jobs.cluster.actions import list_actions
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.system.processes import user_name
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import quarry
from tests.peers.process import wait_for


def read_audit(out: Path) -> list[dict[str, str]]:
    with (out / ".quarry" / "audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_who_did_what_to_a_job_of_the_workers_is_a_row_and_a_line(site: Site) -> None:
    for title in ("W1", "W2"):
        site.start_worker(title)
    site.archive.hold = True
    with site.start("trial", STUDIES) as watching:
        wait_for(lambda: site.archive.now == 2, "a move of each worker", 60)
        assert quarry("stop", "job:trial", "--now").code == 0
        assert watching.wait() == 4, watching.output
    assert site.archive.now == 0, "the archive was told to cancel"
    site.archive.hold = False
    assert site.run("trial", STUDIES).code == 0
    assert quarry("release", "job:trial", "--delete").code == 0
    with Cluster(site.url).connected() as connection:
        done = list_actions(connection, "trial")
    assert [one.action for one in done] == [
        "handed_over",
        "cancel_requested",
        "handed_over",
        "release_requested",
    ]
    assert {(one.person, one.host, one.role) for one in done} == {
        (user_name(), socket.gethostname(), "quarry")
    }
    lines = [
        line for line in read_audit(site.root / "trial") if line["event"] in {one.action for one in done}
    ]
    assert [line["event"] for line in lines] == ["handed_over", "cancel_requested", "handed_over"]
    assert {(line["user"], line["host"]) for line in lines} == {(user_name(), socket.gethostname())}
