"""Exclusion lists: the job's own are in its record, for every computer; the site's are files of each one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_quarry.cluster import job_run
from dicom_quarry.cohort.exclusion_list import ExclusionList
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.exclusion_files import ExclusionFile
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.errors import InputError
from dicom_quarry.extraction import watcher
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.exclusions import (
    RecordedExclusions,
    read_recorded_exclusions,
    record_exclusions,
)
from dicom_quarry.jobs.cluster.tables import create_tables
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.location import PostgresLocation
from tests.cluster.site import STUDIES, Site
from tests.cluster.test_upgrade import run_sql
from tests.e2e.command import quarry
from tests.e2e.job_runs import accessions
from tests.namespaces import Network
from tests.peers.process import wait_for

#: On the list of a job.
REFUSED = STUDIES[3:5]


def write_list(path: Path, studies: list[Any]) -> Path:
    path.write_text("\n".join(["\ufeffAccession", *accessions(studies)]) + "\n", encoding="utf-8")
    return path


def check_outcomes(site: Site, refused: list[Any]) -> None:
    found = dict(zip(accessions(STUDIES), site.outcomes("trial"), strict=True))
    assert {found.pop(one) for one in accessions(refused)} == {"excluded"}
    assert set(found.values()) == {"complete"}
    assert not {one.study_uid for one in refused} & set(site.archive.moves)


def test_workers_and_commands_do_without_the_file_of_a_list(site: Site) -> None:
    listed = write_list(site.work / "optouts.csv", REFUSED)
    site.enter("trial", STUDIES, "--exclude", listed)
    listed.unlink()
    worker = site.start_worker("W1")
    done = quarry("resume", "job:trial")
    assert done.code == 1, done.err
    check_outcomes(site, REFUSED)
    assert quarry("report", "job:trial", "--to", site.work / "reports").code == 1
    assert "exclusion list" in quarry("explain", "job:trial", "--row", 4).out
    worker.interrupt()
    assert worker.wait() == 0
    # The command works on the rows itself.
    retried = quarry("retry", "job:trial", "--outcome", "excluded")
    assert retried.code == 1, retried.err
    check_outcomes(site, REFUSED)


def test_another_computer_has_the_list_of_the_record_and_not_a_file_of_its_own(site: Site) -> None:
    listed = write_list(site.work / "optouts.csv", REFUSED)
    site.enter("trial", STUDIES, "--exclude", listed)
    write_list(listed, STUDIES[:1])
    run_sql(site.url, "UPDATE quarry.jobs SET host = 'laptop'")
    done = quarry("resume", "job:trial")
    assert done.code == 1, done.err
    assert "exclusion list of the job's record: 2 accessions" in done.err + done.out
    check_outcomes(site, REFUSED)


def test_the_computer_of_the_job_reads_a_changed_list_again(site: Site) -> None:
    listed = write_list(site.work / "optouts.csv", REFUSED)
    site.enter("trial", STUDIES, "--exclude", listed)
    write_list(listed, STUDIES[3:6])
    site.start_worker("W1")
    done = quarry("resume", "job:trial")
    assert done.code == 1, done.err
    check_outcomes(site, STUDIES[3:6])


def test_a_list_with_a_mistake_enters_no_job(site: Site) -> None:
    listed = site.work / "optouts.csv"
    listed.write_text("Accession\n4711; 4712\n")
    done = site.run("trial", STUDIES, "--exclude", listed)
    assert done.code == 2
    assert f"the exclusion list cannot be used: {listed}" in done.err
    assert run_sql(site.url, "SELECT name FROM quarry.jobs") == []


@pytest.mark.cluster
def test_a_worker_whose_site_has_another_list_leaves_the_job_to_others(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_site = write_list(tmp_path / "site.csv", STUDIES[:1])
    with Site(tmp_path, url, STUDIES, network=network, limits=f'exclude = "{of_site}"\n') as site:
        site.start_worker("W1")
        with site.start("trial", STUDIES, "--exclude", write_list(tmp_path / "own.csv", REFUSED)):
            named = f"the exclusion lists of the site here ({of_site}) are not those"
            wait_for(lambda: named in quarry("cluster", "status", "--json").out, "its word", 60)
    assert not site.archive.moves


# -- the record


@pytest.fixture
def location(url: str) -> PostgresLocation:
    return Cluster(url).location(1)


@pytest.fixture
def ledger(location: PostgresLocation) -> Iterator[Ledger]:
    with closing(Ledger(location)) as ledger:
        ledger.database.write(create_tables)
        yield ledger


def test_every_character_of_an_identifier_is_kept(ledger: Ledger, location: PostgresLocation) -> None:
    odd = frozenset({"A\0B", "\udce4", "Ä\n\t\\N", "\U0001f600", '"', *map(str, range(2500))})
    values = {"PatientID": odd, "AccessionNumber": frozenset({"4711"})}
    exclusions = ExclusionList(values, site_values={"PatientID": frozenset({"of the site"})})
    record_exclusions(ledger, exclusions)
    assert read_recorded_exclusions(location) == RecordedExclusions(values, exclusions.digest)
    record_exclusions(ledger, ExclusionList({"PatientID": frozenset({"1"})}))
    assert read_recorded_exclusions(location).values == {"PatientID": {"1"}}


def test_the_same_lists_are_not_written_again(ledger: Ledger, location: PostgresLocation) -> None:
    values = {"PatientID": frozenset({"4711"})}
    written = f"SELECT xmin FROM {location.schema}.exclusions"
    record_exclusions(ledger, ExclusionList(values))
    before = run_sql(location.url, written)
    record_exclusions(ledger, ExclusionList(values))
    of_site = ExclusionList(values, site_values={"PatientID": frozenset({"4712"})})
    record_exclusions(ledger, of_site)
    assert run_sql(location.url, written) == before
    assert read_recorded_exclusions(location).digest == of_site.digest


def test_lists_of_the_record_replace_none_that_are_newer(ledger: Ledger, location: PostgresLocation) -> None:
    read_before = ExclusionList({"PatientID": frozenset({"4711"})}, is_recorded=True)
    record_exclusions(ledger, ExclusionList({"PatientID": frozenset({"4711", "4712"})}))
    with pytest.raises(InputError, match="just changed the exclusion lists of this job"):
        record_exclusions(ledger, read_before)
    assert read_recorded_exclusions(location).values == {"PatientID": {"4711", "4712"}}


def test_a_job_with_a_list_that_its_record_does_not_have_is_left(location: PostgresLocation) -> None:
    """An older version of Quarry has recorded the digest alone."""
    Ledger(location).close()
    assert read_recorded_exclusions(location) == RecordedExclusions({}, "")
    place: Any = SimpleNamespace(ledger=location)
    archive = ArchiveProfile.model_validate({"name": "main", "address": "A@127.0.0.1:1"})
    settings = Settings(archives=(archive,), to=Path("out"))
    entered = settings.model_copy(update={"exclude": (ExclusionFile(file=Path("optouts.csv")),)})
    with pytest.raises(InputError, match="does not have its exclusion list: run its quarry extract again"):
        job_run._read_exclusions(place, entered, SitePolicy())
    assert not job_run._read_exclusions(place, settings, SitePolicy())


def test_a_command_that_is_killed_while_it_hands_a_job_over_is_made_good_for(ledger: Ledger) -> None:
    """Workers that were not told of a changed list are told by the next command."""
    ledger.set_metadata(settings="", cohort="")
    told: list[bool] = []

    class Killed(BaseException):
        pass

    def hand_over(_: str, *, is_changed: bool, command: str) -> None:
        told.append(is_changed)
        if len(told) == 1:
            raise Killed

    queries = SimpleNamespace(exclusions=ExclusionList(), settings=SimpleNamespace(command_name=""))
    context: Any = SimpleNamespace(
        queries=queries, ledger=ledger, folder=SimpleNamespace(hand_over=hand_over)
    )
    with pytest.raises(Killed):
        watcher._hand_over(context, "")
    watcher._hand_over(context, "")
    watcher._hand_over(context, "")
    assert told == [True, True, False]
