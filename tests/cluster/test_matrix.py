"""The fault matrix on two workers: the outcomes and files of the job on one host (make test-cluster)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from operator import ge
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.cluster.scenario_workers import TITLES, ClusterStage
from tests.e2e.command import check_folder, quarry
from tests.faults.dicomweb_faults import LIST_CUT_SHORT, WebScenario
from tests.faults.dicomweb_faults import SCENARIOS as WEB
from tests.faults.matrix import SCENARIOS
from tests.faults.scenario import COMPLETE, PENDING, STUDIES, Scenario, by_accession
from tests.faults.scenario_runner import address, outcomes, stored
from tests.faults.short_delays import hasten
from tests.scripted import faults
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.web import ScriptedWeb

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

#: Scenarios in which three fruitless studies show that an archive sends nothing: each worker counts its own.
COUNTED = {"claimed-and-nothing-sent", "behind-another-address"}

#: Scenarios in which a study may have been fetched before another one shows that no row wants it.
FETCHED_BEFORE = {"merged-by-counts-totals", "merged-by-counts-silently"}

#: Scenarios in which a longer page, seen before, shows that a list is whole: each worker sees its own pages.
SEEN_BEFORE = {"last-page-400", "endless-pages"}

PLAYED = [one for one in SCENARIOS if one.name not in COUNTED]


@pytest.fixture
def stage(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> ClusterStage:
    monkeypatch.chdir(tmp_path)
    assert quarry("cluster", "init", url).code == 0
    hasten(monkeypatch.setattr)
    return ClusterStage(tmp_path, url)


def run(scenario: Scenario, stage: ClusterStage) -> api.Result:
    """Run the job of a scenario on the workers of a stage."""
    archive = ScriptedArchive(scenario.studies, scenario.faults(), destinations=stage.destinations)
    words = ["--parallel", scenario.options["parallel"]] if "parallel" in scenario.options else []
    with archive:
        archives = {"main": address(archive)}
        cohort = scenario.cohort or by_accession(scenario.studies)
        with stage.running_workers(archives, scenario.profile, *words):
            result = stage.extract(cohort, archives, scenario.profile, job="trial", **scenario.options)
    print(*stage.messages, *outcomes(result), stage.words(), sep="\n")
    return result


def test_what_is_left_out_is_there() -> None:
    assert {one.name for one in SCENARIOS} >= COUNTED | FETCHED_BEFORE
    assert {one.name for one in WEB} >= SEEN_BEFORE


@pytest.mark.parametrize("scenario", PLAYED, ids=lambda scenario: f"{scenario.item}-{scenario.name}")
def test_fault(scenario: Scenario, stage: ClusterStage) -> None:
    result = run(scenario, stage)
    assert outcomes(result) == list(scenario.rows)
    found, wanted = stored(stage.out, scenario.studies), (*scenario.stored, scenario.apart)
    assert found == wanted or (scenario.name in FETCHED_BEFORE and all(map(ge, found, wanted)))
    assert result.exit_code == scenario.exit_code
    assert bool(result.problem) == (scenario.exit_code == 4)
    if result.exit_code != 4 and not scenario.unlisted:
        check_folder(stage.out)


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_each_worker_tries_three_studies_of_an_archive_that_sends_none(
    name: str, stage: ClusterStage
) -> None:
    [scenario] = [one for one in SCENARIOS if one.name == name]
    scenario = replace(scenario, studies=tuple(generate_studies(12, seed=38, images=1)))
    result = run(scenario, stage)
    found = Counter(outcomes(result))
    assert found[PENDING] >= 12 - 2 * len(TITLES)
    assert {status for status, _ in found} <= {"failed", "pending"}
    assert result.exit_code == 4
    assert all(f"{title}@" in result.problem for title in TITLES)


@pytest.mark.parametrize("scenario", WEB, ids=lambda scenario: scenario.name)
def test_web_fault(scenario: WebScenario, stage: ClusterStage) -> None:
    accessions = dict.fromkeys(study.accession for study in scenario.studies)
    with ScriptedWeb(scenario.studies, scenario.faults()) as web:
        archives = {"main": web.base_url}
        with stage.running_workers(archives, {}):
            result = stage.extract("\n".join(["Accession", *accessions]), archives, {}, job="trial")
    print(*stage.messages, *outcomes(result), stage.words(), sep="\n")
    found, rows = outcomes(result), list(scenario.rows)
    if scenario.name in SEEN_BEFORE:
        found = [COMPLETE if one == LIST_CUT_SHORT else one for one in found]
    assert found == rows
    assert stored(stage.out, scenario.studies) == (*scenario.stored, 0)
    assert result.exit_code == (1 if set(outcomes(result)) - {COMPLETE} else 0)
    check_folder(stage.out)


def test_the_same_command_goes_on_once_the_archive_knows_the_workers(stage: ClusterStage) -> None:
    unknown: list[Fault] = [faults.MoveStatus(0xA801)]
    with ScriptedArchive(STUDIES, unknown, destinations=stage.destinations) as archive:
        archives = {"main": address(archive)}
        with stage.running_workers(archives, {}):
            result = stage.extract(by_accession(), archives, {}, job="trial")
            assert (outcomes(result), result.exit_code) == ([PENDING, PENDING], 4)
            assert "Register this AE title" in result.problem
            assert "Not finished, and not running" in quarry("status", "job:trial").out
            archive.faults.clear()
            result = stage.extract(by_accession(), archives, {}, job="trial")
            assert (outcomes(result), result.exit_code) == ([COMPLETE, COMPLETE], 0)
