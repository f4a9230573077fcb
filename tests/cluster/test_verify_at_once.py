"""A comparison of files by the workers, while other commands and other work go on with the same job."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from dicom_quarry.api.worker_comparison import report_comparison
from dicom_quarry.errors import LedgerError, StartError
from dicom_quarry.jobs.cluster.file_check import FileCheck, FileCheckState
from dicom_quarry.jobs.cluster.opening import open_named
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.verification.by_workers import WorkersVerification
from dicom_quarry.verification.damage_record import read_job_damage
from dicom_quarry.verification.results import VerifyOptions
from dicom_quarry.verification.worker_part import compare_next_part
from tests.cluster.site import STUDIES, Site
from tests.e2e.command import quarry

ALL = {"quick": False, "sample_share": None}
SIZES = {"quick": True, "sample_share": None}


@pytest.fixture
def place(site: Site) -> ClusterPlace:
    """The place of a job that has ended."""
    assert site.run("trial", STUDIES[:3]).code == 0
    place = open_named("trial")
    assert isinstance(place, ClusterPlace)
    return place


@pytest.fixture
def check(place: ClusterPlace) -> FileCheck:
    return FileCheck(place.cluster, place.job)


def state_of(check: FileCheck) -> FileCheckState:
    state = check.read()
    assert state is not None
    return state


def compare_all(place: ClusterPlace) -> None:
    """Compare all parts, as one worker."""
    while compare_next_part(place, "a", lambda: False, report_comparison):
        pass


def run(verification: WorkersVerification, on_progress: Callable[[], None]) -> object:
    return verification.run(lambda _: None, lambda _: on_progress())


def test_a_result_that_a_command_has_shown_first_begins_nothing(
    place: ClusterPlace, check: FileCheck
) -> None:
    check.begin(ALL, searches=True)
    while compare_next_part(place, "a", lambda: False, lambda *_: None):
        pass
    check.note_shown(state_of(check))
    report_comparison(place, check)
    state = state_of(check)
    assert state.ended is not None and not state.is_active


def test_a_comparison_that_was_started_over_is_not_waited_for(place: ClusterPlace, check: FileCheck) -> None:
    """The worker that would report on it is the one that it waits for."""
    check.begin(ALL, searches=True)
    report_comparison(place, check)
    assert state_of(check).is_active


def test_what_another_command_started_over_is_not_shown_as_ones_own(
    place: ClusterPlace, check: FileCheck
) -> None:
    def start_over() -> None:
        check.begin(SIZES, searches=True)
        compare_all(place)

    with (
        WorkersVerification(place, check, VerifyOptions()) as verification,
        pytest.raises(StartError, match="another command has started"),
    ):
        run(verification, start_over)


def test_a_database_that_is_away_is_logged_once(
    place: ClusterPlace, check: FileCheck, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def look_in_vain() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            monkeypatch.undo()
            compare_all(place)

    def fail() -> None:
        raise LedgerError("the database is away")

    monkeypatch.setattr("dicom_quarry.verification.by_workers._INTERVAL", 0.0)
    with WorkersVerification(place, check, VerifyOptions()) as verification:
        monkeypatch.setattr(check, "read", fail)
        assert run(verification, look_in_vain) is not None
    assert caplog.messages == ["the database is away"]


def test_one_that_ends_while_it_is_stopped_is_not_given_out_again(
    place: ClusterPlace, check: FileCheck
) -> None:
    check.begin(ALL, searches=True)
    compare_all(place)
    check.go_on()
    assert not state_of(check).is_active


def test_damage_in_a_sample_is_recorded_by_the_worker_alone(place: ClusterPlace, check: FileCheck) -> None:
    next(place.out.rglob("*.dcm")).unlink()
    check.begin({"quick": False, "sample_share": 1.0, "seed": "a"}, searches=False)
    compare_all(place)
    assert state_of(check).ended is not None
    damage = read_job_damage(place)
    assert damage is not None and damage.files == 1


def test_the_tables_belong_to_the_owner_of_the_job(site: Site, place: ClusterPlace, check: FileCheck) -> None:
    with psycopg.connect(site.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE owner_of_job")
        connection.execute("GRANT USAGE ON SCHEMA quarry TO owner_of_job")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA quarry TO owner_of_job")
        connection.execute("ALTER SCHEMA job_1 OWNER TO owner_of_job")
        connection.execute("ALTER TABLE job_1.claims OWNER TO owner_of_job")
        connection.execute("UPDATE quarry.jobs SET role = 'owner_of_job'")
        try:
            check.begin(ALL, searches=True)
            owners = connection.execute(
                "SELECT tablename, tableowner FROM pg_tables WHERE tablename ~ '^file_check' ORDER BY 1"
            ).fetchall()
        finally:
            connection.execute("REASSIGN OWNED BY owner_of_job TO CURRENT_USER")
            connection.execute("DROP OWNED BY owner_of_job; DROP ROLE owner_of_job")
    names = "file_check_findings", "file_check_parts", "file_checks"
    assert owners == [(name, "owner_of_job") for name in names]


def test_damage_is_recorded_where_the_list_cannot_be_written(place: ClusterPlace, check: FileCheck) -> None:
    next(place.out.rglob("*.dcm")).unlink()
    (place.out / "damaged.csv").mkdir()
    check.begin(ALL, searches=True)
    with pytest.raises(OSError, match="damaged"):
        compare_all(place)
    damage = read_job_damage(place)
    assert damage is not None and damage.files == 1


def test_what_was_found_before_damage_was_mended_is_not_shown_any_more(
    place: ClusterPlace, check: FileCheck
) -> None:
    next(place.out.rglob("*.dcm")).unlink()
    check.begin(ALL, searches=True)
    compare_all(place)
    done = quarry("retry", "job:trial", "--damaged")
    assert done.code == 0, done.out + done.err
    with WorkersVerification(place, check, VerifyOptions()):
        assert state_of(check).is_active, "a new one"
