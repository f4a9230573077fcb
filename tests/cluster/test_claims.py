"""The claims on a job whose files the workers compare, while they or a process fetch its studies, too."""

from __future__ import annotations

import psycopg
import pytest

from dicom_quarry.cluster.window import top_up
from dicom_quarry.jobs.cluster.file_check import FileCheck
from dicom_quarry.jobs.cluster.opening import open_named
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.cluster.workers import list_workers
from tests.cluster.site import STUDIES, Site


@pytest.fixture
def compared(site: Site) -> None:
    """A job that has ended, and whose files are to be compared."""
    assert site.run("trial", STUDIES[:3]).code == 0
    place = open_named("trial")
    assert isinstance(place, ClusterPlace)
    FileCheck(place.cluster, place.job).begin({"quick": False, "sample_share": None}, searches=True)


def add_claim(site: Site, kind: str) -> None:
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute("INSERT INTO job_1.claims VALUES (%s, 1, 'a process', 1, 0)", (kind,))


def claims(site: Site) -> list[str]:
    with psycopg.connect(site.url) as connection:
        return [kind for (kind,) in connection.execute("SELECT kind FROM job_1.claims ORDER BY kind")]


@pytest.mark.usefixtures("compared")
def test_a_job_ends_while_its_files_are_compared(site: Site) -> None:
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute("UPDATE quarry.jobs SET with_workers = true")
        add_claim(site, "files")
        top_up(connection, list_workers(connection), frees_claims=False)
        found = connection.execute("SELECT with_workers, verifying FROM quarry.jobs").fetchone()
    assert found == (False, True)


@pytest.mark.usefixtures("compared")
def test_a_process_that_runs_the_job_keeps_its_claims(site: Site) -> None:
    """It is no worker: its claims are not those of one that vanished."""
    for kind in ("task", "row", "files"):
        add_claim(site, kind)
    with psycopg.connect(site.url, autocommit=True) as connection:
        top_up(connection, list_workers(connection))
    assert claims(site) == ["row", "task"]
