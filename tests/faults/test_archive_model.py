"""A job against any archive ends, fetches nothing that no row means, and never takes less for everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from dicom_quarry.extraction import matching, resolver, retry_policy, study_task
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.retry_policy import Finish, Step
from dicom_quarry.extraction.task_snapshot import TaskSnapshot
from tests.faults.archive_model import (
    ODDITIES,
    TRANSPORTS,
    Answers,
    Change,
    Connection,
    HeldStudy,
    Model,
    Pages,
    Row,
    models,
    oddities_of,
)
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
    max_examples=60,
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


def _fields_of(model: Model, plain: Model = Model()) -> set[str]:  # noqa: B008 (frozen)
    """The names of what is odd about a model."""
    pairs = [(getattr(model, part), getattr(plain, part)) for part in ("answers", "pages", "connection")]
    pairs.append((model, plain))
    return {
        name for mine, usual in pairs for name in vars(mine) if getattr(mine, name) != getattr(usual, name)
    }


@pytest.mark.timeout(600)
def test_models_have_every_oddity(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: Counter[str] = Counter()
    odd: Counter[str] = Counter()
    generated = settings(derandomize=True, database=None, phases=[Phase.generate])

    @settings(generated, max_examples=50)
    @given(st.data())
    def one_by_one(data: st.DataObject) -> None:
        for change in ODDITIES.values():
            odd.update(_fields_of(change(data.draw, Model())))

    @settings(generated, max_examples=100)
    @given(models())
    def together(model: Model) -> None:
        odd.update(_fields_of(model) & {"transport", "studies", "rows"})

    one_by_one()
    for name, change in ODDITIES.items():
        monkeypatch.setitem(ODDITIES, name, _counted(name, change, drawn))
    together()
    expected = {*vars(Model()), *vars(Answers()), *vars(Pages()), *vars(Connection())}
    assert {name for name in expected if odd[name] < 3} == set()
    assert {name for transport in TRANSPORTS for name in oddities_of(transport)} == ODDITIES.keys()
    assert len(drawn) > 15


def _counted(name: str, change: Change, drawn: Counter[str]) -> Change:
    def counted(draw: Callable[..., Any], model: Model) -> Model:
        drawn[name] += 1
        return change(draw, model)

    return counted
