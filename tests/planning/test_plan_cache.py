"""Where plans are kept: what they are found by, and that nothing of somebody else's is removed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.errors import StartError
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.planning import plan_cache

LONG_AGO = timedelta(days=31)


def settings(tmp_path: Path, **options: object) -> Settings:
    return load_settings(None, {"from": "PACS@127.0.0.1:104", "to": str(tmp_path / "out"), **options})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cohort.csv"
    path.write_text("Accession\nA1\nA2\n")
    return path


def place(table: Path, chosen: Settings) -> Path:
    return plan_cache.plan_folder(record.read_cohort(table, chosen)[0], chosen).state


def make(table: Path, chosen: Settings) -> Path:
    with plan_cache.open_plan(record.read_cohort(table, chosen)[0], chosen, detailed=False) as (
        folder,
        _,
        since,
    ):
        assert since is None
    return folder.state


@pytest.mark.parametrize(
    ("option", "same"),
    [
        ({"to": "elsewhere"}, True),
        ({"parallel": 4}, True),
        ({"as": "OTHER:104"}, True),
        ({"filepath": "{SOPInstanceUID}"}, True),
        ({"max_studies": 3}, True),
        ({"whole_patients": True}, False),
        ({"diagnosis": False}, False),
        ({"allow_several_patients": True}, False),
        ({"from": "PACS@127.0.0.1:105"}, False),
    ],
)
def test_what_a_plan_is_found_by(tmp_path: Path, table: Path, option: dict[str, object], same: bool) -> None:
    one = place(table, settings(tmp_path))
    assert (place(table, settings(tmp_path, **option)) == one) is same


def test_another_cohort_is_another_plan(tmp_path: Path, table: Path) -> None:
    one = place(table, settings(tmp_path))
    table.write_text(table.read_text() + "A3\n")
    assert place(table, settings(tmp_path)) != one


def test_it_is_for_its_owner_alone(tmp_path: Path, table: Path) -> None:
    folder = make(table, settings(tmp_path))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ledger.db").stat().st_mode & 0o077 == 0


def test_a_plan_that_is_being_made_is_nobody_else_s(tmp_path: Path, table: Path) -> None:
    chosen = settings(tmp_path)
    make(table, chosen)
    cohort = record.read_cohort(table, chosen)[0]
    job_folder = create_local(chosen.to, None)
    with plan_cache.plan_folder(cohort, chosen).lock(runs_job=False):
        with (
            pytest.raises(StartError, match="already working"),
            plan_cache.open_plan(cohort, chosen, detailed=False),
        ):
            pass
        assert plan_cache.reuse(job_folder, cohort, chosen) is None
    assert plan_cache.reuse(job_folder, cohort, chosen) is not None


def test_a_job_that_has_begun_keeps_its_own(tmp_path: Path, table: Path) -> None:
    chosen = settings(tmp_path)
    make(table, chosen)
    cohort = record.read_cohort(table, chosen)[0]
    folder = create_local(chosen.to, None)
    assert plan_cache.reuse(folder, cohort, chosen) is not None
    assert folder.ledger.stat().st_mode & 0o077 == 0
    assert {path.name for path in folder.state.iterdir()} <= {"ledger.db", "incoming", "lock"}
    before = folder.ledger.read_bytes()
    assert plan_cache.reuse(folder, cohort, chosen) is None
    assert folder.ledger.read_bytes() == before


def test_old_plans_go_and_nothing_else_does(tmp_path: Path, table: Path) -> None:
    old, other, young = (make(table, settings(tmp_path, date_format=f"%Y{sep}%m{sep}%d")) for sep in "./_")
    (other / "letter.txt").write_text("somebody's")
    then = (datetime.now(UTC) - LONG_AGO).timestamp()
    for folder in (old, other):
        os.utime(folder / "ledger.db", (then, then))
    plan_cache.delete_expired(datetime.now(UTC))
    assert not old.exists() and (young / "ledger.db").is_file()
    assert [path.name for path in other.iterdir()] == ["letter.txt"]


def test_when_it_was_made() -> None:
    now = datetime.now().astimezone().replace(hour=14, minute=5)
    assert "from 14:05;" in plan_cache.reuse_message(now.astimezone(UTC), now)
    yesterday = now - timedelta(days=1)
    assert f"from {yesterday:%Y-%m-%d} 14:05;" in plan_cache.reuse_message(yesterday, now)
