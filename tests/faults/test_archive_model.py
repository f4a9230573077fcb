"""A job against any archive ends, fetches nothing that no row means, and never takes less for everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from dicom_quarry.extraction import matching, resolver, retry_policy, study_task
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.retry_policy import Finish, Step
from dicom_quarry.extraction.task_snapshot import TaskSnapshot
from tests.faults.archive_model import Answers, Connection, HeldStudy, Model, Pages, Row, models
from tests.faults.model_job import Defect, play

_P1 = HeldStudy()
_TWO = (HeldStudy(), HeldStudy(accession="A2", date="20180501"))


@example(Model(connection=Connection(limit=1), studies=_TWO, rows=(Row(), Row(study=1))))
@example(Model("get", connection=Connection(limit=1), studies=_TWO, rows=(Row(), Row(study=1))))
@example(Model("get", connection=Connection(every=2)))
@example(Model("web", studies=(_P1, HeldStudy("P2")), answers=Answers(lacks=("PatientID",))))
@example(Model("web", studies=_TWO, rows=(Row("patient"),), pages=Pages(total=1, warns=True)))
@example(Model("web", studies=_TWO, rows=(Row("patient"),), pages=Pages(size=1, heeds_limit=False)))
@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(models())
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_a_job_against_any_archive(model: Model) -> None:
    play(model)


# -- the property can fail: each of these spoils one thing in Quarry


def _believe_cut_answers(change: Callable[..., None]) -> None:
    classify = matching.classify
    change(
        resolver, "classify", lambda row, found, rules: classify(row, replace(found, complete=True), rules)
    )


def _believe_every_answer(change: Callable[..., None]) -> None:
    change(matching, "matches", lambda *_: True)


def _believe_the_first_retrieval(change: Callable[..., None]) -> None:
    decide = retry_policy.next_step

    def next_step(snapshot: TaskSnapshot, **keywords: Any) -> Step:
        done = Finish("all_listed_stored", {"instances": len(snapshot.stored)})
        return done if snapshot.rounds else decide(snapshot, **keywords)

    change(study_task, "next_step", next_step)


def _admit_excluded_images(change: Callable[..., None]) -> None:
    change(InboundStudies, "_match_exclusions", lambda *_: None)


_TWO_ON_ONE_DAY = (HeldStudy(), HeldStudy(accession="A2"))


@pytest.mark.parametrize(
    ("spoil", "model", "kind"),
    [
        (
            _believe_cut_answers,
            Model(studies=_TWO_ON_ONE_DAY, rows=(Row("patient+date"),), answers=Answers(cap=1)),
            "complete, and a study is missing",
        ),
        (
            _believe_every_answer,
            Model("get", studies=_TWO_ON_ONE_DAY, answers=Answers(ignores=("AccessionNumber",))),
            "a file that no row means",
        ),
        (
            _believe_the_first_retrieval,
            Model("web", studies=(HeldStudy(series=(("CT", 2),)),), sendings=("half",)),
            "complete, and an instance is missing",
        ),
        (
            _admit_excluded_images,
            Model(studies=(HeldStudy(inside="P3"),), excluded=("P3",)),
            "a file of an excluded patient",
        ),
    ],
)
def test_a_spoiled_job_is_found_out(
    spoil: Callable[[Callable[..., None]], None], model: Model, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(model)
    spoil(monkeypatch.setattr)
    with pytest.raises(Defect, match=kind):
        play(model)


@pytest.mark.timeout(600)
def test_models_have_every_oddity() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=2000, derandomize=True, database=None, phases=[Phase.generate])
    @given(models())
    def look(model: Model) -> None:
        plain = Model()
        for part in ("answers", "pages", "connection"):
            mine, usual = getattr(model, part), getattr(plain, part)
            seen.update(name for name in vars(mine) if getattr(mine, name) != getattr(usual, name))
        seen.update(name for name in vars(model) if getattr(model, name) != getattr(plain, name))

    look()
    expected = {*vars(Model()), *vars(Answers()), *vars(Pages()), *vars(Connection())}
    assert {name for name in expected if seen[name] < 5} == set()
